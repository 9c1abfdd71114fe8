"""Train a video classifier, all weights, with a head for the labels of the data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.utils.data import Dataset

from tasks.video_classification import TASK, TrainingHyperparameters
from tasks.video_classification.runner import frames_of
from workers.engines.architectures import UnsupportedModel, architecture_of
from workers.engines.loading import check_shards
from workers.engines.videos import (
    UnreadableVideo,
    frame_values,
    load_video_processor,
    read_clip,
)
from workers.trainers.classifier_training import Head, distinct, fit_classifier, split_by_label
from workers.trainers.protocol import (
    BadMaterial,
    Cancelled,
    Progress,
    TrainingRequest,
    TrainingResult,
)
from workers.trainers.training import parse_settings, read_rows

# Processed videos are kept up to this size; beyond it they are read again in every epoch.
KEPT_BYTES = 2 * 1024**3


def train(request: TrainingRequest, progress: Progress) -> TrainingResult:
    """Train; the epoch with the best macro-F1 on the validation split is what is kept.

    Raises:
        BadMaterial: Rows, videos, settings or base cannot be used.
        Cancelled: `progress` said so.
    """
    settings = parse_settings(TrainingHyperparameters, request.hyperparameters)
    if request.media is None:
        raise BadMaterial("The dataset's videos are missing.")
    rows = read_rows(
        request.train_file,
        lambda row: all(isinstance(row.get(key), str) and row[key] for key in ("video", "label")),
        '{"video": "<SHA-256>", "label": "…"}',
    )
    rows, dropped = distinct(rows, "video")
    split = split_by_label(rows, settings, progress)
    if dropped:
        progress.warn(f"{dropped} repeated videos are left out; each video counts once.")
    transformers.set_seed(settings.seed)
    model, processor = _model(request, split.labels)
    number = {label: index for index, label in enumerate(split.labels)}
    folder = request.media

    def examples(part: list[dict[str, Any]]) -> Dataset[dict[str, Any]]:
        return _Videos(
            [folder / row["video"] for row in part],
            [number[row["label"]] for row in part],
            processor=processor,
            frames=frames_of(model),
            progress=progress,
        )

    return fit_classifier(
        request,
        progress,
        model=model,
        processor=processor,
        head=Head(("classifier",), settings.head_factor * settings.learning_rate),
        split=split,
        settings=settings,
        examples=examples,
        collator=_stacked,
        parameters={"rows": len(rows) + dropped, "rows_left_out": dropped},
    )


def _model(request: TrainingRequest, labels: list[str]) -> tuple[Any, Any]:
    try:
        architecture = architecture_of(request.base, TASK.architectures)
        check_shards(request.base)
        processor = load_video_processor(request.base)
        model = getattr(transformers, architecture).from_pretrained(
            request.base,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
        )
        frames_of(model)
        # The Trainer reads checkpoints back by the names in memory, and leaves out what it misses;
        # the older names that transformers writes for this architecture are others.
        model.save_pretrained = partial(model.save_pretrained, save_original_format=False)
    except UnsupportedModel as error:
        raise BadMaterial(f"The base cannot be trained. {error}") from error
    return model, processor


def _stacked(examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    shapes = {tuple(each["pixel_values"].shape) for each in examples}
    if len(shapes) > 1:
        raise BadMaterial(
            "The base's processor makes frames of different sizes; use one that crops or resizes "
            "to a fixed size."
        )
    return {
        "pixel_values": torch.stack([each["pixel_values"] for each in examples]),
        "labels": torch.tensor([each["labels"] for each in examples]),
    }


class _Videos(Dataset[dict[str, Any]]):  # type: ignore[misc]
    """Processed videos, read at the first use and kept while they fit `KEPT_BYTES`."""

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Sequence[int],
        *,
        processor: Any,
        frames: int,
        progress: Progress,
    ) -> None:
        self._paths, self._labels = paths, labels
        self._processor, self._frames, self._progress = processor, frames, progress
        self._kept: dict[int, Tensor] = {}
        self._room = KEPT_BYTES

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pixel_values": self._values(index), "labels": self._labels[index]}

    def _values(self, index: int) -> Tensor:
        if (kept := self._kept.get(index)) is not None:
            return kept
        if self._progress.should_stop():
            raise Cancelled
        path = self._paths[index]
        try:
            values = frame_values(self._processor, read_clip(path, self._frames).frames)
        except UnreadableVideo as error:
            raise BadMaterial(f"Video {path.name}: {error}") from error
        size = values.numel() * values.element_size()
        if size <= self._room:
            self._room -= size
            self._kept[index] = values
        return values
