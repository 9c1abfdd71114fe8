"""Train an audio classifier, all weights, with a head for the labels of the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasks.audio_classification import TASK, TrainingHyperparameters
from workers.engines.architectures import UnsupportedModel
from workers.engines.audio import UnreadableAudio, read_audio
from workers.engines.audio_features import AudioFeatures
from workers.trainers.bases import load_base
from workers.trainers.media_classifier import MediaModel, train_media_classifier
from workers.trainers.protocol import BadMaterial, Progress, TrainingRequest, TrainingResult
from workers.trainers.training import parse_settings


def train(request: TrainingRequest, progress: Progress) -> TrainingResult:
    """Train; the epoch with the best macro-F1 on the validation split is kept.

    Of a recording longer than the model's window, the first window is trained on.

    Raises:
        BadMaterial: Rows, recordings, settings or base cannot be used.
        Canceled: `progress` said so.
    """
    settings = parse_settings(TrainingHyperparameters, request.hyperparameters)
    return train_media_classifier(
        request,
        progress,
        settings=settings,
        column="audio",
        noun="recording",
        head=("classifier", "projector"),
        head_factor=settings.head_factor,
        load=lambda folder, labels: _loaded(folder, labels, settings.shift),
    )


def _loaded(folder: Path, labels: list[str], shift: float) -> MediaModel:
    try:
        features = AudioFeatures(folder)
    except UnsupportedModel as error:
        raise BadMaterial(f"The base cannot be trained. {error}") from error
    model = load_base(
        folder,
        TASK.architectures,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )

    cut: set[str] = set()

    def read(path: Path) -> Tensor:
        try:
            windows: Tensor = features(read_audio(path, features.rate))[0]
        except UnreadableAudio as error:
            raise BadMaterial(f"Recording {path.name}: {error}") from error
        if len(windows) > 1:
            cut.add(path.name)
        return windows[0]

    def shifted(values: Tensor) -> Tensor:
        time = -1 if features.time_last else 0
        most = int(shift * values.shape[time])
        return values.roll(int(torch.randint(-most, most + 1, ())), time)

    def stacked(examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Stack features; raw samples of different lengths are filled up with silence."""
        values = [each["values"] for each in examples]
        together = (
            torch.nn.utils.rnn.pad_sequence(values, batch_first=True)
            if values[0].dim() == 1
            else torch.stack(values)
        )
        labels = torch.tensor([each["labels"] for each in examples])
        return {model.main_input_name: together, "labels": labels}

    return MediaModel(
        model,
        features.extractor,
        read=read,
        collate=stacked,
        vary=shifted if shift else None,
        cut=cut,
    )
