"""Train a segmenter, all weights, with classes for the categories of the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from registry.catalog.regions import IGNORED
from tasks.image_segmentation import TASK, TRAINED, TrainingHyperparameters
from tasks.image_segmentation.masks import crowded, read_mask
from tasks.image_segmentation.measures import pixel_counts, scores
from workers.engines.architectures import UnsupportedModel
from workers.engines.images import load_image_processor
from workers.trainers.bases import load_base
from workers.trainers.kept import Kept, read_pixels
from workers.trainers.material import distinct
from workers.trainers.protocol import (
    BadMaterial,
    Canceled,
    Progress,
    TrainingRequest,
    TrainingResult,
)
from workers.trainers.training import (
    MonitoredTrainer,
    arguments,
    hold_out,
    parse_settings,
    read_rows,
    run_trainer,
    step_count,
)

MIN_ROWS = 8
_SHAPE = '{"image": "<SHA-256>", "mask": "<SHA-256>", "categories": […]}'

Rows = list[dict[str, Any]]


def train(request: TrainingRequest, progress: Progress) -> TrainingResult:
    """Train; the epoch with the lowest loss on the validation rows is what is kept.

    Raises:
        BadMaterial: Rows, files, settings or base cannot be used.
        Canceled: `progress` said so.
    """
    settings = parse_settings(TrainingHyperparameters, request.hyperparameters)
    if request.media is None:
        raise BadMaterial("The dataset's images are missing.")
    rows, dropped = distinct(read_rows(request.train_file, _is_row, _SHAPE), "image")
    if dropped:
        progress.warn(f"{dropped} repeated images are left out; each image counts once.")
    labels = _labels(rows)
    train_rows, validation_rows = hold_out(rows, settings.validation_fraction, settings.seed)
    progress.log(
        f"{len(train_rows)} images to train on and {len(validation_rows)} to validate on, "
        f"categories {', '.join(labels)}."
    )
    transformers.set_seed(settings.seed)
    model, processor = _model(request, labels)
    media = request.media

    def images(part: Rows, *, mirror: bool = False) -> _Images:
        return _Images(part, media, labels, processor, mirror=mirror)

    steps = step_count(len(train_rows), settings)
    validation = images(validation_rows)
    trainer = MonitoredTrainer(
        progress=progress,
        model=model,
        args=arguments(
            request,
            settings.seed,
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            per_device_train_batch_size=settings.batch_size,
            per_device_eval_batch_size=32,
            weight_decay=settings.weight_decay,
            warmup_steps=round(steps * settings.warmup_ratio),
            lr_scheduler_type="cosine",
            train_sampling_strategy="random",
            eval_strategy="epoch",
            save_strategy="epoch",
            load_best_model_at_end=True,
            metric_for_best_model="loss",
            greater_is_better=False,
            prediction_loss_only=True,
        ),
        train_dataset=images(train_rows, mirror=settings.mirror),
        eval_dataset=validation,
        data_collator=_stacked,
    )
    metrics, notes = run_trainer(trainer, processor, request, progress)
    measured = _measured(trainer.model, validation, progress)
    return TrainingResult(
        metrics={
            "validation_loss": metrics["eval_loss"],
            "validation_mean_iou": measured["mean_iou"],
            "validation_pixel_accuracy": measured["pixel_accuracy"],
        },
        parameters={
            **settings.model_dump(),
            "rows": len(rows) + dropped,
            "rows_left_out": dropped,
            "train_rows": len(train_rows),
            "validation_rows": len(validation_rows),
            "steps": trainer.state.max_steps,
        },
        notes=notes,
    )


def _is_row(row: dict[str, Any]) -> bool:
    return (
        isinstance(row.get("image"), str)
        and isinstance(row.get("mask"), str)
        and isinstance(row.get("categories"), list)
    )


def _labels(rows: Rows) -> list[str]:
    """Return the categories in the order in which rows name them, the background first as a rule.

    Raises:
        BadMaterial: there are too few or too many, or too few rows.
    """
    labels = list(dict.fromkeys(label for row in rows for label in row["categories"]))
    crowded(labels)
    if len(labels) < 2:
        raise BadMaterial("The masks have one category; a segmenter needs two or more.")
    if len(rows) < MIN_ROWS:
        raise BadMaterial(f"There are {len(rows)} different images; at least {MIN_ROWS} are used.")
    return labels


def _model(request: TrainingRequest, labels: list[str]) -> tuple[Any, Any]:
    try:
        processor = load_image_processor(request.base, whole=True)
    except UnsupportedModel as error:
        raise BadMaterial(f"The base cannot be trained. {error}") from error
    model = load_base(
        request.base,
        TASK.architectures,
        trained_as=_trained,
        semantic_loss_ignore_index=IGNORED,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    return model, processor


def _trained(architecture: str) -> str:
    if architecture not in TRAINED:
        raise BadMaterial(
            f"{architecture} is served, but not trained here. Use one of: {', '.join(TRAINED)}."
        )
    return architecture


def _stacked(examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    if len({tuple(each["pixel_values"].shape) for each in examples}) > 1:
        raise BadMaterial(
            "The base's processor makes images of different sizes; use one that resizes to a "
            "fixed size."
        )
    return {name: torch.stack([each[name] for each in examples]) for name in examples[0]}


@torch.no_grad()  # type: ignore[untyped-decorator]
def _measured(model: Any, validation: _Images, progress: Progress) -> dict[str, float]:
    """Return IoU of the weights that are kept, on the validation rows, in the processor's size."""
    model.eval()
    labels = validation.labels
    counts = np.zeros((len(labels) + 1, len(labels) + 1), dtype=np.int64)
    for number in range(len(validation)):
        if progress.should_stop():
            raise Canceled
        example = validation[number]
        logits = model(pixel_values=example["pixel_values"][None].to(model.device)).logits.cpu()
        truth = example["labels"].numpy()
        best = torch.nn.functional.interpolate(logits, size=truth.shape, mode="bilinear").argmax(1)
        counts += pixel_counts(truth, best[0].numpy(), len(labels))
    return scores(counts, labels)


class _Images(Dataset[dict[str, Tensor]]):  # type: ignore[misc]
    """Processed images and masks."""

    def __init__(
        self,
        rows: Rows,
        folder: Path,
        labels: list[str],
        processor: Any,
        *,
        mirror: bool,
    ) -> None:
        self.labels = labels
        self._rows, self._folder = rows, folder
        self._processor, self._mirror = processor, mirror
        self._values = Kept(self._read)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        values, mask = self._values[index]
        if self._mirror and torch.rand(()) < 0.5:
            values, mask = values.flip(-1), mask.flip(-1)
        return {"pixel_values": values, "labels": mask.long()}

    def _read(self, index: int) -> tuple[Tensor, Tensor]:
        row = self._rows[index]
        values = read_pixels(self._folder / row["image"], self._processor)
        _, height, width = values.shape
        mask = read_mask(self._folder / row["mask"], row["categories"], self.labels)
        small = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
        return values, torch.from_numpy(np.array(small))
