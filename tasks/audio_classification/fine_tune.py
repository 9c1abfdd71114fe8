"""Train an audio classifier, all weights or an adapter, with a head for the labels of the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.plugins import run
from tasks.audio_classification import TASK, LoraHyperparameters, TrainingHyperparameters

# Names of the last layers.
HEADS = ("classifier", "projector")


def train(request: run.TrainingRequest, progress: run.Progress) -> run.TrainingResult:
    """Train, and keep the epoch with the best macro-F1 on the validation split.

    For a recording longer than the model's window, training uses the first window.

    Raises:
        BadMaterial: Rows, recordings, settings or base cannot be used.
        Canceled: `progress` requests a stop.
    """
    schema = LoraHyperparameters if request.method == "lora" else TrainingHyperparameters
    settings = run.parse_settings(schema, request.hyperparameters)
    return run.train_media_classifier(
        request,
        progress,
        settings=settings,
        column="audio",
        noun="recording",
        head=HEADS,
        head_factor=settings.head_factor,
        load=lambda folder, labels: _loaded(folder, labels, settings),
    )


def _loaded(folder: Path, labels: list[str], settings: TrainingHyperparameters) -> run.MediaModel:
    try:
        features = run.AudioFeatures(folder)
    except run.UnsupportedModel as error:
        raise run.BadMaterial(f"The base cannot be trained. {error}") from error
    if isinstance(settings, LoraHyperparameters):
        model = run.load_adaptable(folder, TASK.base_architectures, labels, HEADS)
    else:
        model = run.load_base(
            folder,
            TASK.architectures,
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
        )
    cut: set[str] = set()

    def read(path: Path) -> Tensor:
        try:
            windows: Tensor = features(run.read_audio(path, features.rate))[0]
        except run.UnreadableAudio as error:
            raise run.BadMaterial(f"Recording {path.name}: {error}") from error
        if len(windows) > 1:
            cut.add(path.name)
        return windows[0]

    def shifted(values: Tensor) -> Tensor:
        time = -1 if features.time_last else 0
        most = int(settings.shift * values.shape[time])
        return values.roll(int(torch.randint(-most, most + 1, ())), time)

    def stacked(examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Stack features; pad raw samples of different lengths with silence."""
        values = [each["values"] for each in examples]
        together = (
            torch.nn.utils.rnn.pad_sequence(values, batch_first=True)
            if values[0].dim() == 1
            else torch.stack(values)
        )
        labels = torch.tensor([each["labels"] for each in examples])
        return {model.main_input_name: together, "labels": labels}

    return run.MediaModel(
        model,
        features.extractor,
        read=read,
        collate=stacked,
        vary=shifted if settings.shift else None,
        cut=cut,
    )
