"""Train an image classifier, all weights, with a head for the labels of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasks.image_classification import TASK, TrainingHyperparameters
from workers.engines.architectures import UnsupportedModel, is_timm, read_json
from workers.engines.images import load_image_processor
from workers.trainers.bases import load_base
from workers.trainers.kept import read_pixels
from workers.trainers.media_classifier import MediaModel, stacked_pixels, train_media_classifier
from workers.trainers.protocol import BadMaterial, Progress, TrainingRequest, TrainingResult
from workers.trainers.training import parse_settings

# Names of the last layer: transformers', and those that timm's architectures have.
HEADS = ("classifier", "fc", "head")


def train(request: TrainingRequest, progress: Progress) -> TrainingResult:
    """Train; the epoch with the best macro-F1 on the validation split is kept.

    Raises:
        BadMaterial: Rows, images, settings or base cannot be used.
        Canceled: `progress` said so.
    """
    settings = parse_settings(TrainingHyperparameters, request.hyperparameters)
    return train_media_classifier(
        request,
        progress,
        settings=settings,
        column="image",
        noun="image",
        head=HEADS,
        head_factor=settings.head_factor,
        load=lambda folder, labels: _loaded(folder, labels, mirror=settings.mirror),
    )


def _loaded(folder: Path, labels: list[str], *, mirror: bool) -> MediaModel:
    try:
        processor = load_image_processor(folder)
        of_timm = is_timm(read_json(folder / "config.json"))
    except UnsupportedModel as error:
        raise BadMaterial(f"The base cannot be trained. {error}") from error
    # timm's configs state the number of labels too.
    stated: dict[str, Any] = {"num_labels": len(labels)} if of_timm else {}
    model = load_base(
        folder,
        TASK.architectures,
        **stated,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    if of_timm:
        # timm's configs hold their labels under this name, and it would keep those of the base.
        model.config.label_names = labels
    return MediaModel(
        model,
        processor,
        read=lambda path: read_pixels(path, processor),
        collate=stacked_pixels,
        vary=_mirrored if mirror else None,
    )


def _mirrored(values: Tensor) -> Tensor:
    """Return half of the images flipped left to right."""
    return values.flip(-1) if torch.rand(()) < 0.5 else values
