"""Serve a forecasting model: mean and quantiles of each step after a history."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assay.plugins import run
from assay.plugins.run import Item
from assay_tasks_extra.time_series_forecasting.forecasters import Scaled, load_forecaster
from assay_tasks_extra.time_series_forecasting.schema import (
    Forecast,
    ForecastInputs,
    ForecastOptions,
)


class ForecastRunner(run.BaseRunner):
    """Returns one `Forecast` for each history.

    A history that exceeds the model's context is refused, or loses its start if the options allow
    it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        architectures: Sequence[str],
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        self._forecaster = load_forecaster(folder, architectures, device=device)
        # Models pad to their context, so every history takes the time of the longest.
        self.limits = run.BatchLimits(items=64, size=max(65_536, self._forecaster.context))

    def prepare(
        self, request_id: str, inputs: ForecastInputs, options: ForecastOptions
    ) -> run.Prepared:
        steps = options.prediction_length
        if steps > self._forecaster.horizon:
            raise run.RequestRefused(
                f"This model forecasts at most {self._forecaster.horizon} steps; {steps} were "
                "requested.",
                code="prediction_too_long",
            )
        context = self._forecaster.context
        long = [len(history) - context for history in inputs.histories if len(history) > context]
        if long and options.truncate == "none":
            raise run.RequestRefused(
                f"This model's maximum context length is {context:,} values; a series has "
                f"{context + long[0]:,}. Send the last {context:,}, or set truncate to START.",
                code="context_length_exceeded",
            )
        return run.Prepared(
            items=[
                Item(
                    (
                        Scaled.of(history, context),
                        inputs.frequency,
                        steps,
                        options.quantile_levels,
                    ),
                    size=context,
                )
                for history in inputs.histories
            ],
            units=sum(len(history) + steps for history in inputs.histories),
            cut_inputs=len(long),
            cut_tokens=sum(long),
        )

    def collate(self, items: Sequence[Item]) -> tuple[list[np.ndarray], list[str | None]]:
        return [item.payload[0].values for item in items], [item.payload[1] for item in items]

    def run(self, batch: tuple[list[np.ndarray], list[str | None]]) -> np.ndarray:
        output: np.ndarray = self._forecaster.forward(*batch).float().cpu().numpy()
        return output

    def split(self, output: np.ndarray, items: Sequence[Item]) -> list[Any]:
        if not np.isfinite(output).all():
            raise ValueError("The model returned numbers that are infinite or not a number.")
        return [self._forecast(row, item) for row, item in zip(output, items, strict=True)]

    def _forecast(self, output: np.ndarray, item: Item) -> Forecast:
        scaled, _, steps, levels = item.payload
        mean, quantiles = self._forecaster.decode(output[:steps].astype(np.float64), levels)
        return {
            "mean": scaled.restored(mean).tolist(),
            "quantiles": [scaled.restored(each).tolist() for each in quantiles],
        }
