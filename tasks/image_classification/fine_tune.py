"""Train an image classifier, all weights or an adapter, with a head for the labels of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.plugins import run
from tasks.image_classification import TASK, LoraHyperparameters, TrainingHyperparameters

# Names of the last layer, in transformers and in timm's architectures.
HEADS = ("classifier", "fc", "head")


def train(request: run.TrainingRequest, progress: run.Progress) -> run.TrainingResult:
    """Train, and keep the epoch with the best macro-F1 on the validation split.

    Raises:
        BadMaterial: Rows, images, settings or base cannot be used.
        Canceled: `progress` requests a stop.
    """
    schema = LoraHyperparameters if request.method == "lora" else TrainingHyperparameters
    settings = run.parse_settings(schema, request.hyperparameters)
    return run.train_media_classifier(
        request,
        progress,
        settings=settings,
        column="image",
        noun="image",
        head=HEADS,
        head_factor=settings.head_factor,
        load=lambda folder, labels: _loaded(folder, labels, settings),
    )


def _loaded(folder: Path, labels: list[str], settings: TrainingHyperparameters) -> run.MediaModel:
    try:
        processor = run.load_image_processor(folder)
        of_timm = run.is_timm(run.read_json(folder / "config.json"))
    except run.UnsupportedModel as error:
        raise run.BadMaterial(f"The base cannot be trained. {error}") from error
    if isinstance(settings, LoraHyperparameters):
        model = run.load_adaptable(folder, TASK.base_architectures, labels, HEADS)
    else:
        # A config of timm also states the number of labels.
        extra: dict[str, Any] = {"num_labels": len(labels)} if of_timm else {}
        model = run.load_base(
            folder,
            TASK.architectures,
            **extra,
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
        )
    if of_timm:
        # A config of timm holds its labels under this name, and would keep the labels of the base.
        model.config.label_names = labels
    return run.MediaModel(
        model,
        processor,
        read=lambda path: run.read_pixels(path, processor),
        collate=run.stacked_pixels,
        vary=_mirrored if settings.mirror else None,
    )


def _mirrored(values: Tensor) -> Tensor:
    """Return half of the images flipped left to right."""
    return values.flip(-1) if torch.rand(()) < 0.5 else values
