"""Train a video classifier, all weights, with a head for the labels of the data."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from torch import Tensor

from tasks.video_classification import TASK, TrainingHyperparameters
from tasks.video_classification.runner import frames_of
from workers.engines.architectures import UnsupportedModel
from workers.engines.videos import UnreadableVideo, frame_values, load_video_processor, read_clip
from workers.trainers.bases import load_base
from workers.trainers.media_classifier import MediaModel, stacked_pixels, train_media_classifier
from workers.trainers.protocol import BadMaterial, Progress, TrainingRequest, TrainingResult
from workers.trainers.training import parse_settings


def train(request: TrainingRequest, progress: Progress) -> TrainingResult:
    """Train; the epoch with the best macro-F1 on the validation split is kept.

    Raises:
        BadMaterial: Rows, videos, settings or base cannot be used.
        Canceled: `progress` said so.
    """
    settings = parse_settings(TrainingHyperparameters, request.hyperparameters)
    return train_media_classifier(
        request,
        progress,
        settings=settings,
        column="video",
        noun="video",
        head=("classifier",),
        head_factor=settings.head_factor,
        load=_loaded,
    )


def _loaded(folder: Path, labels: list[str]) -> MediaModel:
    try:
        processor = load_video_processor(folder)
        model = load_base(
            folder,
            TASK.architectures,
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
        )
        frames = frames_of(model)
    except UnsupportedModel as error:
        raise BadMaterial(f"The base cannot be trained. {error}") from error
    # The Trainer reads checkpoints back by the names in memory, and leaves out what it misses; the
    # older names that transformers writes for this architecture are others.
    model.save_pretrained = partial(model.save_pretrained, save_original_format=False)

    def read(path: Path) -> Tensor:
        try:
            return frame_values(processor, read_clip(path, frames).frames)
        except UnreadableVideo as error:
            raise BadMaterial(f"Video {path.name}: {error}") from error

    return MediaModel(model, processor, read=read, collate=stacked_pixels)
