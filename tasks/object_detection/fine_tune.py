"""Train an object detector, all weights, with classes for the labels of the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.utils.data import Dataset

from tasks.object_detection import TASK, TrainingHyperparameters
from tasks.object_detection.measures import average_precision, corners
from tasks.object_detection.runner import MAX_SIDE, detections
from workers.engines.architectures import UnsupportedModel
from workers.engines.images import UnreadableImage, load_image_processor, pixels, read_image
from workers.trainers.bases import load_base
from workers.trainers.kept import Kept
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

MAX_LABELS = 1_000
MIN_ROWS = 8
MIN_BOXES_PER_LABEL = 4
_SHAPE = '{"image": "<SHA-256>", "objects": {"bbox": […], "categories": […]}}'

Rows = list[dict[str, Any]]


def train(request: TrainingRequest, progress: Progress) -> TrainingResult:
    """Train; the epoch with the lowest loss on the validation rows is what is kept.

    Raises:
        BadMaterial: Rows, images, settings or base cannot be used.
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
        f"labels {', '.join(labels)}."
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
            max_grad_norm=settings.max_gradient,
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
    precision = _measured(trainer.model, processor, validation, progress)
    return TrainingResult(
        metrics={
            "validation_loss": metrics["eval_loss"],
            "validation_map": precision["map"],
            "validation_map_50": precision["map_50"],
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
    objects = row.get("objects")
    return (
        isinstance(row.get("image"), str)
        and isinstance(objects, dict)
        and isinstance(objects.get("bbox"), list)
        and isinstance(objects.get("categories"), list)
    )


def _labels(rows: Rows) -> list[str]:
    """Return the labels in alphabetical order. Raises BadMaterial."""
    counts = Counter(label for row in rows for label in row["objects"]["categories"])
    if not 1 <= len(counts) <= MAX_LABELS:
        raise BadMaterial(
            f"The boxes have {len(counts)} labels; a detector has 1 to {MAX_LABELS:,}."
        )
    rare = [label for label in sorted(counts) if counts[label] < MIN_BOXES_PER_LABEL]
    if rare:
        raise BadMaterial(
            f"The label {rare[0]!r} has {counts[rare[0]]} boxes; each needs {MIN_BOXES_PER_LABEL}."
        )
    if len(rows) < MIN_ROWS:
        raise BadMaterial(f"There are {len(rows)} different images; at least {MIN_ROWS} are used.")
    return sorted(counts)


def _model(request: TrainingRequest, labels: list[str]) -> tuple[Any, Any]:
    try:
        processor = load_image_processor(request.base, max_side=MAX_SIDE, whole=True)
    except UnsupportedModel as error:
        raise BadMaterial(f"The base cannot be trained. {error}") from error
    model = load_base(
        request.base,
        TASK.architectures,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    return model, processor


def _stacked(examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if len({tuple(each["pixel_values"].shape) for each in examples}) > 1:
        raise BadMaterial(
            "The base's processor makes images of different sizes; use one that resizes to a "
            "fixed size."
        )
    return {
        "pixel_values": torch.stack([each["pixel_values"] for each in examples]),
        "labels": [each["labels"] for each in examples],
    }


@torch.no_grad()  # type: ignore[untyped-decorator]
def _measured(
    model: Any, processor: Any, validation: _Images, progress: Progress
) -> dict[str, float]:
    """Return the average precision of the weights that are kept, on the validation rows."""
    model.eval()
    found = []
    for number in range(len(validation)):
        if progress.should_stop():
            raise Canceled
        values = validation[number]["pixel_values"][None].to(model.device)
        size = validation.sizes[number]
        (each,) = processor.post_process_object_detection(
            model(pixel_values=values), threshold=0.0, target_sizes=[size]
        )
        found.append(
            detections(
                {name: value.cpu() for name, value in each.items()},
                validation.labels,
                size=size,
                threshold=0.0,
            )
        )
    return average_precision([row["objects"] for row in validation.rows], found, validation.labels)


class _Images(Dataset[dict[str, Any]]):  # type: ignore[misc]
    """Processed images with their boxes."""

    def __init__(
        self,
        rows: Rows,
        folder: Path,
        labels: list[str],
        processor: Any,
        *,
        mirror: bool,
    ) -> None:
        self.rows, self.labels = rows, labels
        self.sizes: dict[int, tuple[int, int]] = {}
        self._folder, self._processor = folder, processor
        self._number = {label: index for index, label in enumerate(labels)}
        self._mirror = mirror
        self._values = Kept(self._read)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        values = self._values[index]
        objects, (height, width) = self.rows[index]["objects"], self.sizes[index]
        boxes = corners(objects, width, height) / torch.tensor([width, height, width, height])
        if self._mirror and torch.rand(()) < 0.5:
            values = values.flip(-1)
            boxes = torch.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], 1)
        middle, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        return {
            "pixel_values": values,
            "labels": {
                "class_labels": torch.tensor(
                    [self._number[label] for label in objects["categories"]], dtype=torch.int64
                ),
                "boxes": torch.cat([middle, size], 1),
            },
        }

    def _read(self, index: int) -> Tensor:
        path = self._folder / self.rows[index]["image"]
        try:
            image = read_image(path)
        except UnreadableImage as error:
            raise BadMaterial(f"Image {path.name}: {error}") from error
        self.sizes[index] = (image.height, image.width)
        return pixels(self._processor, image)
