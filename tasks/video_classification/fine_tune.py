"""Train a video classifier, all weights, with a head for the labels of the data."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from torch import Tensor

from assay.plugins import run
from tasks.video_classification import TASK, TrainingHyperparameters
from tasks.video_classification.runner import frames_of


def train(request: run.TrainingRequest, progress: run.Progress) -> run.TrainingResult:
    """Train, and keep the epoch with the best macro-F1 on the validation split.

    Raises:
        BadMaterial: Rows, videos, settings or base cannot be used.
        Canceled: `progress` requests a stop.
    """
    settings = run.parse_settings(TrainingHyperparameters, request.hyperparameters)
    return run.train_media_classifier(
        request,
        progress,
        settings=settings,
        column="video",
        noun="video",
        head=("classifier",),
        head_factor=settings.head_factor,
        load=_loaded,
    )


def _loaded(folder: Path, labels: list[str]) -> run.MediaModel:
    try:
        processor = run.load_video_processor(folder)
        model = run.load_base(
            folder,
            TASK.architectures,
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
        )
        frames = frames_of(model)
    except run.UnsupportedModel as error:
        raise run.BadMaterial(f"The base cannot be trained. {error}") from error
    # The Trainer reads checkpoints by the tensors' names in memory, and skips missing names; by
    # default transformers writes older names for this architecture.
    model.save_pretrained = partial(model.save_pretrained, save_original_format=False)

    def read(path: Path) -> Tensor:
        try:
            return run.frame_values(processor, run.read_clip(path, frames).frames)
        except run.UnreadableVideo as error:
            raise run.BadMaterial(f"Video {path.name}: {error}") from error

    return run.MediaModel(model, processor, read=read, collate=run.stacked_pixels)
