"""Train an object detector, all weights, with classes for the labels of the data."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.plugins import run
from tasks.object_detection import TASK, TrainingHyperparameters
from tasks.object_detection.measures import average_precision, corners
from tasks.object_detection.runner import MAX_SIDE, detections

MAX_LABELS = 1_000
MIN_BOXES_PER_LABEL = 4
_SHAPE = '{"image": "<SHA-256>", "objects": {"bbox": […], "categories": […]}}'


def train(request: run.TrainingRequest, progress: run.Progress) -> run.TrainingResult:
    """Train, and keep the epoch with the lowest loss on the validation rows.

    Raises:
        BadMaterial: Rows, images, settings or base cannot be used.
        Canceled: `progress` requests a stop.
    """
    settings = run.parse_settings(TrainingHyperparameters, request.hyperparameters)
    return run.train_on_regions(
        request,
        progress,
        settings=settings,
        is_row=_is_row,
        shape=_SHAPE,
        labels_of=_labels,
        noun="labels",
        load=partial(
            run.load_for_regions,
            request,
            TASK.architectures,
            image_settings={"max_side": MAX_SIDE},
        ),
        images=_Images,
        measure=_measured,
        max_grad_norm=settings.max_gradient,
    )


def _is_row(row: dict[str, Any]) -> bool:
    objects = row.get("objects")
    return (
        isinstance(row.get("image"), str)
        and isinstance(objects, dict)
        and isinstance(objects.get("bbox"), list)
        and isinstance(objects.get("categories"), list)
    )


def _labels(rows: list[dict[str, Any]]) -> list[str]:
    """Return the labels in alphabetical order. Raises BadMaterial."""
    counts = Counter(label for row in rows for label in row["objects"]["categories"])
    if not 1 <= len(counts) <= MAX_LABELS:
        raise run.BadMaterial(
            f"The boxes have {len(counts)} labels; a detector has 1 to {MAX_LABELS:,}."
        )
    rare = [label for label in sorted(counts) if counts[label] < MIN_BOXES_PER_LABEL]
    if rare:
        raise run.BadMaterial(
            f"The label {rare[0]!r} has {counts[rare[0]]} boxes; each needs {MIN_BOXES_PER_LABEL}."
        )
    return sorted(counts)


def _measured(model: Any, images: _Images, progress: run.Progress) -> dict[str, float]:
    """Return the average precision."""
    answers = []
    for number, example in run.examples_of(images, progress):
        size = images.sizes[number]
        (each,) = images.processor.post_process_object_detection(
            model(pixel_values=example["pixel_values"][None].to(model.device)),
            threshold=0.0,
            target_sizes=[size],
        )
        boxes = {name: value.cpu() for name, value in each.items()}
        answers.append(detections(boxes, images.labels, size=size, threshold=0.0))
    precision = average_precision([row["objects"] for row in images.rows], answers, images.labels)
    return {name: precision[name] for name in ("map", "map_50")}


class _Images(run.RegionImages):
    """Processed images with their boxes."""

    def __init__(
        self, rows: Any, folder: Path, labels: list[str], processor: Any, *, mirror: bool
    ) -> None:
        super().__init__(rows, folder, labels, processor, mirror=mirror)
        self.sizes: dict[int, tuple[int, int]] = {}
        self._number = {label: index for index, label in enumerate(labels)}

    def __getitem__(self, index: int) -> dict[str, Any]:
        values = self.values[index]
        objects, (height, width) = self.rows[index]["objects"], self.sizes[index]
        boxes = corners(objects, width, height) / torch.tensor([width, height, width, height])
        if self.mirrored():
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

    def read(self, index: int) -> Tensor:
        path = self.folder / self.rows[index]["image"]
        try:
            image = run.read_image(path)
        except run.UnreadableImage as error:
            raise run.BadMaterial(f"Image {path.name}: {error}") from error
        self.sizes[index] = (image.height, image.width)
        return run.pixels(self.processor, image)
