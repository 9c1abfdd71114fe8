"""Train a segmenter, all weights, with classes for the categories of the data."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from assay.plugins import declare, run
from tasks.image_segmentation import TASK, TRAINED, TrainingHyperparameters
from tasks.image_segmentation.masks import crowded, read_mask
from tasks.image_segmentation.measures import pixel_counts, scores

_SHAPE = '{"image": "<SHA-256>", "mask": "<SHA-256>", "categories": […]}'


def train(request: run.TrainingRequest, progress: run.Progress) -> run.TrainingResult:
    """Train, and keep the epoch with the lowest loss on the validation rows.

    Raises:
        BadMaterial: Rows, files, settings or base cannot be used.
        Canceled: `progress` requests a stop.
    """
    return run.train_on_regions(
        request,
        progress,
        settings=run.parse_settings(TrainingHyperparameters, request.hyperparameters),
        is_row=_is_row,
        shape=_SHAPE,
        labels_of=_labels,
        noun="categories",
        load=partial(
            run.load_for_regions,
            request,
            TASK.architectures,
            trained_as=_trained,
            semantic_loss_ignore_index=declare.IGNORED_PIXEL,
        ),
        images=_Images,
        measure=_measured,
    )


def _is_row(row: dict[str, Any]) -> bool:
    return (
        isinstance(row.get("image"), str)
        and isinstance(row.get("mask"), str)
        and isinstance(row.get("categories"), list)
    )


def _labels(rows: list[dict[str, Any]]) -> list[str]:
    """Return the categories in order of first use; the background usually comes first.

    Raises:
        BadMaterial: there are too few or too many categories.
    """
    labels = list(dict.fromkeys(label for row in rows for label in row["categories"]))
    crowded(labels)
    if len(labels) < 2:
        raise run.BadMaterial("The masks have one category; a segmenter needs two or more.")
    return labels


def _trained(architecture: str) -> str:
    if architecture not in TRAINED:
        raise run.BadMaterial(
            f"{architecture} can be served, but not trained. Use one of: {', '.join(TRAINED)}."
        )
    return architecture


def _measured(model: Any, images: run.RegionImages, progress: run.Progress) -> dict[str, float]:
    """Return the mean IoU at the size of the processor's images."""
    labels = images.labels
    counts = np.zeros((len(labels) + 1, len(labels) + 1), dtype=np.int64)
    for _, example in run.examples_of(images, progress):
        logits = model(pixel_values=example["pixel_values"][None].to(model.device)).logits.cpu()
        truth = example["labels"].numpy()
        best = torch.nn.functional.interpolate(logits, size=truth.shape, mode="bilinear").argmax(1)
        counts += pixel_counts(truth, best[0].numpy(), len(labels))
    measured = scores(counts, labels)
    return {name: measured[name] for name in ("mean_iou", "pixel_accuracy")}


class _Images(run.RegionImages):
    """Processed images and masks."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        values, mask = self.values[index]
        if self.mirrored():
            values, mask = values.flip(-1), mask.flip(-1)
        return {"pixel_values": values, "labels": mask.long()}

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        row = self.rows[index]
        values = run.read_pixels(self.folder / row["image"], self.processor)
        _, height, width = values.shape
        mask = read_mask(self.folder / row["mask"], row["categories"], self.labels)
        small = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
        return values, torch.from_numpy(np.array(small))
