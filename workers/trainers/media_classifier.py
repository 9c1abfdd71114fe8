"""Train media classifiers on rows of one file and one label, with a head for the labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.utils.data import Dataset

from workers.hyperparameters import ClassifierSettings
from workers.trainers.classifier_training import Head, distinct, fit_classifier, split_by_label
from workers.trainers.file_cache import TensorCache
from workers.trainers.lengths import warn_of_cut
from workers.trainers.protocol import BadMaterial, Progress, TrainingRequest, TrainingResult
from workers.trainers.training import read_rows

Example = dict[str, Any]


@dataclass(frozen=True, slots=True)
class MediaModel:
    """A classifier to train, and functions that read its files.

    Attributes:
        model: A transformers classifier with one output for each label.
        processor: Saved with the model.
        read: Returns the values of one file. Raises BadMaterial.
        collate: Makes a batch from examples {"values": tensor, "labels": number}.
        vary: Changes the values of a training row at each read; None leaves them unchanged.
        cut: Names of files that `read` had to cut.
    """

    model: Any
    processor: Any
    read: Callable[[Path], Tensor]
    collate: Callable[[Sequence[Example]], dict[str, Tensor]]
    vary: Callable[[Tensor], Tensor] | None = None
    cut: set[str] = field(default_factory=set)


def train_media_classifier(
    request: TrainingRequest,
    progress: Progress,
    *,
    settings: ClassifierSettings,
    column: str,
    noun: str,
    head: tuple[str, ...],
    head_factor: float,
    load: Callable[[Path, list[str]], MediaModel],
) -> TrainingResult:
    """Train, and keep the epoch with the best macro-F1 on the validation split.

    Args:
        request: The run.
        progress: Receives reports.
        settings: The run's settings.
        column: The rows' column of files.
        noun: Word for one file, such as "recording".
        head: Names of the randomly initialized layers.
        head_factor: Learning rate of these layers, relative to the other layers.
        load: Returns the model of a base's folder, with a head for the labels.

    Raises:
        BadMaterial: Rows, files or base cannot be used.
        Canceled: `progress` requested the end.
    """
    if request.media is None:
        raise BadMaterial(f"The dataset's {noun}s are missing.")
    folder = request.media
    all_rows = read_rows(
        request.train_file,
        lambda row: all(isinstance(row.get(key), str) and row[key] for key in (column, "label")),
        f'{{"{column}": "<SHA-256>", "label": "…"}}',
    )
    rows, dropped = distinct(all_rows, column)
    split = split_by_label(rows, settings, progress)
    if dropped:
        progress.warn(f"{dropped} repeated {noun}s are left out; each {noun} counts once.")
    transformers.set_seed(settings.seed)
    loaded = load(request.base, split.labels)
    numbers = {label: index for index, label in enumerate(split.labels)}

    def examples(part: list[dict[str, Any]]) -> _Examples:
        paths = [folder / row[column] for row in part]
        return _Examples(
            TensorCache(lambda index: loaded.read(paths[index])),
            [numbers[row["label"]] for row in part],
            loaded.vary if part is split.train else None,
        )

    def counted(rows: list[dict[str, Any]]) -> int:
        count = sum(row[column] in loaded.cut for row in rows)
        warn_of_cut(progress, count, len(rows), f"the beginning of each {noun}")
        return count

    return fit_classifier(
        request,
        progress,
        model=loaded.model,
        processor=loaded.processor,
        head=Head(head, head_factor * settings.learning_rate),
        split=split,
        settings=settings,
        examples=examples,
        collator=loaded.collate,
        parameters={"rows": len(all_rows), "rows_left_out": dropped},
        rows_cut=lambda: counted(rows),
    )


def stacked_pixels(examples: Sequence[Example]) -> dict[str, Tensor]:
    """Return a batch of pictures of equal size. Raises BadMaterial if sizes differ."""
    if len({each["values"].shape for each in examples}) > 1:
        raise BadMaterial(
            "The base's processor makes pictures of different sizes; use one that crops or resizes "
            "to a fixed size."
        )
    return {
        "pixel_values": torch.stack([each["values"] for each in examples]),
        "labels": torch.tensor([each["labels"] for each in examples]),
    }


class _Examples(Dataset[Example]):  # type: ignore[misc]
    def __init__(
        self,
        values: TensorCache[Tensor],
        labels: Sequence[int],
        vary: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self._values, self._labels, self._vary = values, labels, vary

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Example:
        values = self._values[index]
        return {
            "values": values if self._vary is None else self._vary(values),
            "labels": self._labels[index],
        }
