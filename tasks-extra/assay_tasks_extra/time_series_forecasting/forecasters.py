"""A common interface to transformers' models that forecast quantiles of one series.

Each history is scaled in 64 bits before a model reads it, so that the magnitude of a series does
not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from assay.plugins import declare, run
from assay_tasks_extra.time_series_forecasting.schema import MAX_HORIZON

_LEAST_SPREAD = 1e-9
_SMALLEST = 1e-12


@dataclass(frozen=True, slots=True)
class Scaled:
    """The end of a history, scaled for a model: distances from its last value, in units of its
    spread. This does not affect models that scale their input themselves."""

    values: np.ndarray
    last: float
    spread: float

    @classmethod
    def of(cls, history: Sequence[float] | np.ndarray, longest: int) -> Scaled:
        """Scale the last `longest` values."""
        values = np.asarray(history[-longest:], dtype=np.float64)
        last, spread = float(values[-1]), float(values.std())
        # A constant series, or a series whose changes are lost in rounding.
        spread = max(spread, _LEAST_SPREAD * float(np.abs(values).max()), _SMALLEST)
        return cls(((values - last) / spread).astype(np.float32), last, spread)

    def restored(self, values: np.ndarray) -> np.ndarray:
        """Return forecast values in the unit of the history."""
        return values.astype(np.float64) * self.spread + self.last


class Forecaster(Protocol):
    """A model with its batch format. `horizon` is the number of steps that it forecasts."""

    model: Any
    context: int
    horizon: int

    def forward(self, histories: Sequence[np.ndarray], frequencies: Sequence[str | None]) -> Tensor:
        """Return the model's output for each scaled history: [histories, horizon, numbers]."""

    def loss(self, output: Tensor, future: Tensor, mask: Tensor) -> Tensor:
        """Return the loss where `mask` is 1; `future` and `mask` are [histories, horizon]."""

    def decode(self, output: np.ndarray, levels: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """Return mean [horizon] and quantiles [levels, horizon] of one history's output."""


def load_forecaster(
    folder: Path, architectures: Sequence[str], *, device: torch.device
) -> Forecaster:
    """Load the model in `folder`.

    Raises:
        UnsupportedModel: its configuration does not fit forecasts of a single series.
    """
    kinds: dict[str, Callable[[Any], Forecaster]] = {
        "PatchTSTForPrediction": PatchTST,
        "TimesFmModelForPrediction": TimesFm,
    }
    kind = kinds[run.architecture_of(folder, architectures)]
    try:
        # 16 bits are too coarse for differences of a thousandth of a series' range.
        model = run.load_model(folder, architectures, dtype=torch.float32, device=device)
        return kind(model)
    except run.UnsupportedModel:
        raise
    except Exception as error:
        raise run.UnsupportedModel(f"The model cannot be loaded: {error}") from error


def _check_lengths(context: int, horizon: int) -> None:
    if not 1 <= context <= declare.MAX_SERIES_VALUES or not 1 <= horizon <= MAX_HORIZON:
        raise run.UnsupportedModel(
            f"The configuration states a context of {context} and a horizon of {horizon}; at most "
            f"{declare.MAX_SERIES_VALUES:,} and {MAX_HORIZON:,} are supported."
        )


# TimesFM's three frequency classes: up to days (0), weeks and months (1), and longer (2).
_FREQUENCIES = {"W": 1, "MS": 1, "QS": 2, "YS": 2}


class TimesFm:
    """Google's TimesFM 2.0: a decoder over patches, with a mean and nine quantiles of each step."""

    def __init__(self, model: Any) -> None:
        self.model = model
        config = model.config
        self.context, self.horizon = config.context_length, config.horizon_length
        _check_lengths(self.context, self.horizon)
        self._levels = np.asarray(config.quantiles, dtype=np.float64)
        if len(self._levels) < 2 or not (
            self._levels[0] > 0 and (np.diff(self._levels) > 0).all() and self._levels[-1] < 1
        ):
            raise run.UnsupportedModel("config.json must list at least two ascending quantiles.")

    def forward(self, histories: Sequence[np.ndarray], frequencies: Sequence[str | None]) -> Tensor:
        device = self.model.device
        output: Tensor = self.model(
            past_values=[torch.from_numpy(each).to(device) for each in histories],
            freq=[_FREQUENCIES.get(each or "", 0) for each in frequencies],
        ).full_predictions
        return output

    def loss(self, output: Tensor, future: Tensor, mask: Tensor) -> Tensor:
        levels = torch.as_tensor(self._levels, dtype=output.dtype, device=output.device)
        errors = future[..., None] - output[..., 1:]
        pinball = torch.maximum((levels - 1) * errors, levels * errors).mean(dim=-1)
        squared = (future - output[..., 0]) ** 2
        return ((pinball + 0.1 * squared) * mask).sum() / mask.sum().clamp_min(1)

    def decode(self, output: np.ndarray, levels: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        # Sort, because quantiles of a network can cross.
        ordered = np.sort(output[:, 1:], axis=1)
        quantiles = np.stack([np.interp(levels, self._levels, step) for step in ordered], axis=1)
        return output[:, 0], quantiles


class PatchTST:
    """PatchTST with a normal or Student-t distribution of each step."""

    def __init__(self, model: Any) -> None:
        self.model = model
        config = model.config
        self.context, self.horizon = config.context_length, config.prediction_length
        _check_lengths(self.context, self.horizon)
        self._kind = config.distribution_output
        if (
            config.num_input_channels != 1
            or config.loss != "nll"
            or self._kind
            not in (
                "normal",
                "student_t",
            )
        ):
            raise run.UnsupportedModel(
                "A PatchTST must read one channel and have the loss nll with the distribution "
                "normal or student_t."
            )

    def forward(self, histories: Sequence[np.ndarray], frequencies: Sequence[str | None]) -> Tensor:
        past = np.zeros((len(histories), self.context, 1), dtype=np.float32)
        observed = np.zeros_like(past)
        for row, each in enumerate(histories):
            past[row, self.context - len(each) :, 0] = each
            observed[row, self.context - len(each) :] = 1
        device = self.model.device
        output = self.model(
            past_values=torch.from_numpy(past).to(device),
            past_observed_mask=torch.from_numpy(observed).to(device),
        )
        *freedom, middle, scale = output.prediction_outputs
        parts = [middle * output.scale + output.loc, scale * output.scale, *freedom]
        return torch.cat(parts, dim=-1)

    def loss(self, output: Tensor, future: Tensor, mask: Tensor) -> Tensor:
        if self._kind == "normal":
            likely = torch.distributions.Normal(output[..., 0], output[..., 1])
        else:
            likely = torch.distributions.StudentT(output[..., 2], output[..., 0], output[..., 1])
        return -(likely.log_prob(future) * mask).sum() / mask.sum().clamp_min(1)

    def decode(self, output: np.ndarray, levels: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        middle, scale = output[:, 0], output[:, 1]
        share = np.asarray(levels)[:, None]
        points = (
            stats.norm.ppf(share) if self._kind == "normal" else stats.t.ppf(share, output[:, 2])
        )
        return middle, middle + points * scale
