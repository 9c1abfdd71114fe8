"""Train an image classifier, all weights, with a head for the labels of the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.utils.data import Dataset

from tasks.image_classification import TASK, TrainingHyperparameters
from workers.engines.architectures import UnsupportedModel, is_timm, read_json
from workers.engines.images import UnreadableImage, load_image_processor, pixels, read_image
from workers.trainers.bases import load_base
from workers.trainers.classifier_training import Head, distinct, fit_classifier, split_by_label
from workers.trainers.protocol import (
    BadMaterial,
    Cancelled,
    Progress,
    TrainingRequest,
    TrainingResult,
)
from workers.trainers.training import parse_settings, read_rows

# Names of the last layer: transformers', and those that timm's architectures have.
HEADS = ("classifier", "fc", "head")
# Processed images are kept up to this size; beyond it they are read again in every epoch.
KEPT_BYTES = 2 * 1024**3


def train(request: TrainingRequest, progress: Progress) -> TrainingResult:
    """Train; the epoch with the best macro-F1 on the validation split is what is kept.

    Raises:
        BadMaterial: Rows, images, settings or base cannot be used.
        Cancelled: `progress` said so.
    """
    settings = parse_settings(TrainingHyperparameters, request.hyperparameters)
    if request.media is None:
        raise BadMaterial("The dataset's images are missing.")
    rows, dropped = distinct(read_labeled(request.train_file), "image")
    split = split_by_label(rows, settings, progress)
    if dropped:
        progress.warn(f"{dropped} repeated images are left out; each image counts once.")
    transformers.set_seed(settings.seed)
    model, processor = _model(request, split.labels)
    number = {label: index for index, label in enumerate(split.labels)}
    folder = request.media

    def examples(part: list[dict[str, Any]]) -> Dataset[dict[str, Any]]:
        return _Images(
            [folder / row["image"] for row in part],
            [number[row["label"]] for row in part],
            processor=processor,
            progress=progress,
            mirror=settings.mirror and part is split.train,
        )

    return fit_classifier(
        request,
        progress,
        model=model,
        processor=processor,
        head=Head(HEADS, settings.head_factor * settings.learning_rate),
        split=split,
        settings=settings,
        examples=examples,
        collator=_stacked,
        parameters={"rows": len(rows) + dropped, "rows_left_out": dropped},
    )


def read_labeled(path: Path) -> list[dict[str, Any]]:
    """Return rows {"image", "label"}. Raises BadMaterial."""
    return read_rows(
        path,
        lambda row: all(isinstance(row.get(key), str) and row[key] for key in ("image", "label")),
        '{"image": "<SHA-256>", "label": "…"}',
    )


def _model(request: TrainingRequest, labels: list[str]) -> tuple[Any, Any]:
    try:
        processor = load_image_processor(request.base)
        of_timm = is_timm(read_json(request.base / "config.json"))
    except UnsupportedModel as error:
        raise BadMaterial(f"The base cannot be trained. {error}") from error
    # timm's configs state the number of labels too.
    stated: dict[str, Any] = {"num_labels": len(labels)} if of_timm else {}
    model = load_base(
        request.base,
        TASK.architectures,
        **stated,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    if of_timm:
        # timm's configs hold their labels under this name, and it would keep those of the base.
        model.config.label_names = labels
    return model, processor


def _stacked(examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    shapes = {tuple(each["pixel_values"].shape) for each in examples}
    if len(shapes) > 1:
        raise BadMaterial(
            "The base's processor makes images of different sizes; use one that crops or resizes "
            "to a fixed size."
        )
    return {
        "pixel_values": torch.stack([each["pixel_values"] for each in examples]),
        "labels": torch.tensor([each["labels"] for each in examples]),
    }


class _Images(Dataset[dict[str, Any]]):  # type: ignore[misc]
    """Processed images, read at the first use and kept while they fit `KEPT_BYTES`."""

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Sequence[int],
        *,
        processor: Any,
        progress: Progress,
        mirror: bool,
    ) -> None:
        self._paths, self._labels = paths, labels
        self._processor, self._progress, self._mirror = processor, progress, mirror
        self._kept: dict[int, Tensor] = {}
        self._room = KEPT_BYTES

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        values = self._values(index)
        if self._mirror and torch.rand(()) < 0.5:
            values = values.flip(-1)
        return {"pixel_values": values, "labels": self._labels[index]}

    def _values(self, index: int) -> Tensor:
        if (kept := self._kept.get(index)) is not None:
            return kept
        if self._progress.should_stop():
            raise Cancelled
        path = self._paths[index]
        try:
            values = pixels(self._processor, read_image(path))
        except UnreadableImage as error:
            raise BadMaterial(f"Image {path.name}: {error}") from error
        size = values.numel() * values.element_size()
        if size <= self._room:
            self._room -= size
            self._kept[index] = values
        return values
