"""Train an audio classifier, all weights, with a head for the labels of the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.utils.data import Dataset

from tasks.audio_classification import TASK, TrainingHyperparameters
from workers.engines.architectures import UnsupportedModel, architecture_of
from workers.engines.audio import UnreadableAudio, read_audio
from workers.engines.audio_features import AudioFeatures
from workers.engines.loading import check_shards
from workers.trainers.classifier_training import Head, distinct, fit_classifier, split_by_label
from workers.trainers.protocol import (
    BadMaterial,
    Cancelled,
    Progress,
    TrainingRequest,
    TrainingResult,
)
from workers.trainers.training import parse_settings, read_rows

# Features are kept up to this size; beyond it recordings are read again in every epoch.
KEPT_BYTES = 2 * 1024**3


def train(request: TrainingRequest, progress: Progress) -> TrainingResult:
    """Train; the epoch with the best macro-F1 on the validation split is what is kept.

    Of a recording longer than the model's window, the first window is trained on.

    Raises:
        BadMaterial: Rows, recordings, settings or base cannot be used.
        Cancelled: `progress` said so.
    """
    settings = parse_settings(TrainingHyperparameters, request.hyperparameters)
    if request.media is None:
        raise BadMaterial("The dataset's recordings are missing.")
    rows, dropped = distinct(read_labeled(request.train_file), "audio")
    split = split_by_label(rows, settings, progress)
    if dropped:
        progress.warn(f"{dropped} repeated recordings are left out; each counts once.")
    transformers.set_seed(settings.seed)
    model, features = _model(request, split.labels)
    number = {label: index for index, label in enumerate(split.labels)}
    folder = request.media

    def examples(part: list[dict[str, Any]]) -> Dataset[dict[str, Any]]:
        return _Recordings(
            [folder / row["audio"] for row in part],
            [number[row["label"]] for row in part],
            features=features,
            progress=progress,
            shift=settings.shift if part is split.train else 0.0,
        )

    return fit_classifier(
        request,
        progress,
        model=model,
        processor=features.extractor,
        head=Head(("classifier", "projector"), settings.head_factor * settings.learning_rate),
        split=split,
        settings=settings,
        examples=examples,
        collator=_Collator(model.main_input_name),
        parameters={"rows": len(rows) + dropped, "rows_left_out": dropped},
    )


def read_labeled(path: Path) -> list[dict[str, Any]]:
    """Return rows {"audio", "label"}. Raises BadMaterial."""
    return read_rows(
        path,
        lambda row: all(isinstance(row.get(key), str) and row[key] for key in ("audio", "label")),
        '{"audio": "<SHA-256>", "label": "…"}',
    )


def _model(request: TrainingRequest, labels: list[str]) -> tuple[Any, AudioFeatures]:
    try:
        architecture = architecture_of(request.base, TASK.architectures)
        check_shards(request.base)
        features = AudioFeatures(request.base)
    except UnsupportedModel as error:
        raise BadMaterial(f"The base cannot be trained. {error}") from error
    model = getattr(transformers, architecture).from_pretrained(
        request.base,
        local_files_only=True,
        use_safetensors=True,
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    return model, features


class _Collator:
    """Stacks features; raw samples of different lengths are filled up with silence."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        values = [each["values"] for each in examples]
        stacked = (
            torch.nn.utils.rnn.pad_sequence(values, batch_first=True)
            if values[0].dim() == 1
            else torch.stack(values)
        )
        labels = torch.tensor([each["labels"] for each in examples])
        return {self._name: stacked, "labels": labels}


class _Recordings(Dataset[dict[str, Any]]):  # type: ignore[misc]
    """Features of recordings, read at the first use and kept while they fit `KEPT_BYTES`."""

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Sequence[int],
        *,
        features: AudioFeatures,
        progress: Progress,
        shift: float,
    ) -> None:
        self._paths, self._labels = paths, labels
        self._features, self._progress, self._shift = features, progress, shift
        self._kept: dict[int, Tensor] = {}
        self._room = KEPT_BYTES

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        values = self._values(index)
        if self._shift:
            time = -1 if self._features.time_last else 0
            most = int(self._shift * values.shape[time])
            values = values.roll(int(torch.randint(-most, most + 1, ())), time)
        return {"values": values, "labels": self._labels[index]}

    def _values(self, index: int) -> Tensor:
        if (kept := self._kept.get(index)) is not None:
            return kept
        if self._progress.should_stop():
            raise Cancelled
        path = self._paths[index]
        try:
            values = self._features(read_audio(path, self._features.rate))[0][0]
        except UnreadableAudio as error:
            raise BadMaterial(f"Recording {path.name}: {error}") from error
        size = values.numel() * values.element_size()
        if size <= self._room:
            self._room -= size
            self._kept[index] = values
        return values
