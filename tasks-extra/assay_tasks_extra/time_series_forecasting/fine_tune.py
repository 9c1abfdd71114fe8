"""Train a forecasting model, all weights, on windows of the data's series and synthetic ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.data import Dataset

from assay.plugins import run
from assay_tasks_extra.time_series_forecasting import TASK, TrainingHyperparameters
from assay_tasks_extra.time_series_forecasting.forecasters import (
    Forecaster,
    Scaled,
    load_forecaster,
)
from assay_tasks_extra.time_series_forecasting.synthetic import made_series

# The shortest history of a window.
LEAST_HISTORY = 8
# All synthetic series come from one pool, so that the run time does not depend on their share.
MADE_SERIES = 500
MADE_LENGTH = 400
# Measurements on the validation windows in a run.
CHECKS = 8


@dataclass(frozen=True, slots=True)
class Source:
    """Values to cut windows from, and their frequency."""

    values: np.ndarray
    frequency: str | None


def train(request: run.TrainingRequest, progress: run.Progress) -> run.TrainingResult:
    """Train, and keep the last weights.

    The run measures one window at the end of each series. These are too few to select weights: the
    best of eight measurements may be of a model that has hardly learned.

    Raises:
        BadMaterial: Rows, settings or base cannot be used.
        Canceled: `progress` requests a stop.
    """
    settings = run.parse_settings(TrainingHyperparameters, request.hyperparameters)
    rows = run.read_rows(request.train_file, _is_row, '{"name": "…", "series": {"values": […], …}}')
    transformers.set_seed(settings.seed)
    try:
        forecaster = load_forecaster(request.base, TASK.architectures, device=torch.device("cpu"))
    except run.UnsupportedModel as error:
        raise run.BadMaterial(f"The base cannot be trained. {error}") from error
    sources, held_out = _sources(rows, forecaster, progress)
    generator = np.random.default_rng(settings.seed)
    synthetic = [
        Source(made_series(generator, MADE_LENGTH + forecaster.horizon), None)
        for _ in range(MADE_SERIES if settings.made_share else 0)
    ]
    every = max(1, settings.steps // CHECKS)
    trainer = _Trainer(
        forecaster=forecaster,
        progress=progress,
        model=forecaster.model,
        args=run.training_arguments(
            request,
            settings.seed,
            max_steps=settings.steps,
            learning_rate=settings.learning_rate,
            per_device_train_batch_size=settings.batch_size,
            per_device_eval_batch_size=64,
            weight_decay=settings.weight_decay,
            warmup_steps=settings.steps // 10,
            lr_scheduler_type="cosine",
            train_sampling_strategy="sequential",
            eval_strategy="steps",
            eval_steps=every,
            save_strategy="steps",
            save_steps=every,
            label_names=["future"],
        ),
        train_dataset=_Windows(
            sources,
            synthetic,
            made_share=settings.made_share,
            count=settings.steps * settings.batch_size,
            seed=settings.seed,
            context=forecaster.context,
            horizon=forecaster.horizon,
        ),
        eval_dataset=held_out,
        data_collator=_stacked,
    )

    def save(folder: Path) -> None:
        forecaster.model.save_pretrained(folder)
        run.finish_config(folder)

    metrics, notes = run.run_trainer(trainer, None, request, progress, save=save)
    return run.TrainingResult(
        metrics={"validation_loss": metrics["eval_loss"]},
        parameters={
            **settings.model_dump(),
            "series": len(sources),
            "values": int(sum(len(each.values) for each in sources)),
            "validation_windows": len(held_out),
        },
        notes=notes,
    )


def _is_row(row: dict[str, Any]) -> bool:
    series = row.get("series")
    return isinstance(series, dict) and isinstance(series.get("values"), list)


def _sources(
    rows: Sequence[dict[str, Any]], forecaster: Forecaster, progress: run.Progress
) -> tuple[list[Source], list[dict[str, Any]]]:
    """Return the training sources, and a validation window at the end of each series."""
    sources: list[Source] = []
    held_out: list[dict[str, Any]] = []
    short = 0
    for row in rows:
        values = np.asarray(row["series"]["values"], dtype=np.float64)
        end = len(values) - min(forecaster.horizon, len(values) // 5)
        if end < LEAST_HISTORY + 1:
            short += 1
            continue
        source = Source(values, row["series"].get("frequency"))
        held_out.append(window(source, 0, end, forecaster.context, forecaster.horizon))
        sources.append(Source(values[:end], source.frequency))
    if not sources:
        raise run.BadMaterial(
            f"Every series is too short; the minimum is {LEAST_HISTORY + 3} values."
        )
    if short:
        progress.warn(f"{short} of {len(rows)} series are too short, and are left out.")
    progress.log(
        f"{len(sources)} series with {sum(len(each.values) for each in sources):,} values to train "
        "on; the end of each is held out to validate on."
    )
    return sources, held_out


def window(source: Source, start: int, end: int, context: int, horizon: int) -> dict[str, Any]:
    """Return the scaled history from `start` to `end`, and the known part of its future."""
    scaled = Scaled.of(source.values[start:end], context)
    after = source.values[end : end + horizon]
    future, mask = np.zeros(horizon, np.float32), np.zeros(horizon, np.float32)
    # Clipped, so that one unpredictable leap does not outweigh all other windows.
    future[: len(after)] = np.clip((after - scaled.last) / scaled.spread, -20, 20)
    mask[: len(after)] = 1
    return {
        "history": scaled.values,
        "frequency": source.frequency,
        "future": future,
        "known": mask,
    }


class _Windows(Dataset[dict[str, Any]]):  # type: ignore[misc]
    """Random windows, determined by their number, so that a resumed run uses the same ones."""

    def __init__(
        self,
        sources: Sequence[Source],
        synthetic: Sequence[Source],
        *,
        made_share: float,
        count: int,
        seed: int,
        context: int,
        horizon: int,
    ) -> None:
        self._sources, self._made, self._made_share = sources, synthetic, made_share
        self._count, self._seed = count, seed
        self._context, self._horizon = context, horizon
        # Long series have more information, but must not dominate the short ones.
        weights = np.sqrt([len(each.values) for each in sources])
        self._weights = weights / weights.sum()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = np.random.default_rng((self._seed, index))
        if self._made and generator.random() < self._made_share:
            source = self._made[int(generator.integers(len(self._made)))]
        else:
            source = self._sources[int(generator.choice(len(self._sources), p=self._weights))]
        total = len(source.values)
        # At least one value to predict, at most the model's horizon.
        latest = max(LEAST_HISTORY, total - self._horizon)
        longest = min(self._context, latest)
        # Half of the histories fill the model's context, the usual case in service.
        length = longest
        if generator.random() < 0.5:
            length = int(generator.integers(LEAST_HISTORY, longest + 1))
        end = int(generator.integers(length, max(length, latest) + 1))
        end = min(end, total - 1)
        return window(source, max(0, end - length), end, self._context, self._horizon)


def _stacked(examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "history": [each["history"] for each in examples],
        "frequency": [each["frequency"] for each in examples],
        "future": torch.from_numpy(np.stack([each["future"] for each in examples])),
        "known": torch.from_numpy(np.stack([each["known"] for each in examples])),
    }


class _Trainer(run.MonitoredTrainer):
    """The forecaster's loss, on batches that are lists of arrays."""

    def __init__(self, *, forecaster: Forecaster, **rest: Any) -> None:
        super().__init__(**rest)
        self._forecaster = forecaster

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, **rest: Any
    ) -> Any:
        self._reporter.check()
        output = self._forecaster.forward(inputs["history"], inputs["frequency"])
        loss = self._forecaster.loss(output, inputs["future"], inputs["known"])
        return (loss, {"output": output}) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Any, None, None]:
        with torch.no_grad():
            inputs = self._prepare_inputs(inputs)
            return self.compute_loss(model, inputs).detach(), None, None
