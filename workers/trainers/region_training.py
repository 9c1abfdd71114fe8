"""Train models that find regions in images: segmenters and detectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.utils.data import Dataset

from workers.engines.architectures import UnsupportedModel
from workers.engines.images import load_image_processor
from workers.trainers.bases import load_base
from workers.trainers.file_cache import TensorCache
from workers.trainers.protocol import (
    BadMaterial,
    Canceled,
    Progress,
    TrainingRequest,
    TrainingResult,
)
from workers.trainers.rows import distinct, hold_out, read_rows
from workers.trainers.training import MonitoredTrainer, epoch_arguments, run_trainer

MIN_ROWS = 8

Rows = list[dict[str, Any]]


class RegionImages(Dataset[dict[str, Any]]):  # type: ignore[misc]
    """Processed images with their regions.

    A subclass reads the values of a row in `read`, which are cached, and makes examples from them.
    It flips an example left to right if `mirrored()`, which applies to half of them.
    """

    def __init__(
        self, rows: Rows, folder: Path, labels: list[str], processor: Any, *, mirror: bool
    ) -> None:
        self.rows, self.folder, self.labels, self.processor = rows, folder, labels, processor
        self._mirror = mirror
        self.values: TensorCache[Any] = TensorCache(self.read)

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> Any:
        """Return a tensor, or a tuple of tensors, of a row. Raises BadMaterial."""
        raise NotImplementedError

    def mirrored(self) -> bool:
        """Return whether to flip the next example."""
        return self._mirror and bool(torch.rand(()) < 0.5)


def train_on_regions(
    request: TrainingRequest,
    progress: Progress,
    *,
    settings: Any,
    is_row: Callable[[dict[str, Any]], bool],
    shape: str,
    labels_of: Callable[[Rows], list[str]],
    noun: str,
    load: Callable[[list[str]], tuple[Any, Any]],
    images: type[RegionImages],
    measure: Callable[[Any, Any, Progress], dict[str, float]],
    **overrides: Any,
) -> TrainingResult:
    """Train, and keep the epoch with the lowest loss on the validation rows.

    Args:
        settings: Epochs, rates and so on; `overrides` are further arguments of transformers.
        is_row, shape: Check of a row, and a description of its form.
        labels_of: Returns the labels of the rows in the order of the model's classes.
        noun: Plural noun for the labeled things, for the log.
        load: Returns the base with classes for the labels, and its image processor.
        images: Class of the dataset of the rows.
        measure: Returns metrics of the final weights on the validation rows.

    Raises:
        BadMaterial: Rows, images, settings or base cannot be used.
        Canceled: `progress` requested the end.
    """
    if request.media is None:
        raise BadMaterial("The dataset's images are missing.")
    rows, dropped = distinct(read_rows(request.train_file, is_row, shape), "image")
    if dropped:
        progress.warn(f"{dropped} repeated images are left out; each image counts once.")
    labels = labels_of(rows)
    if len(rows) < MIN_ROWS:
        raise BadMaterial(f"There are {len(rows)} different images; {MIN_ROWS} are required.")
    train_rows, validation_rows = hold_out(rows, settings.validation_fraction, settings.seed)
    progress.log(
        f"{len(train_rows)} images to train on and {len(validation_rows)} to validate on, "
        f"{noun} {', '.join(labels)}."
    )
    transformers.set_seed(settings.seed)
    model, processor = load(labels)
    train = images(train_rows, request.media, labels, processor, mirror=settings.mirror)
    validation = images(validation_rows, request.media, labels, processor, mirror=False)
    trainer = MonitoredTrainer(
        progress=progress,
        model=model,
        args=epoch_arguments(
            request,
            settings,
            len(train_rows),
            lr_scheduler_type="cosine",
            train_sampling_strategy="random",
            prediction_loss_only=True,
            bf16=False,
            **overrides,
        ),
        train_dataset=train,
        eval_dataset=validation,
        data_collator=_stacked,
    )
    metrics, notes = run_trainer(trainer, processor, request, progress)
    trainer.model.eval()
    with torch.no_grad():
        measured = measure(trainer.model, validation, progress)
    return TrainingResult(
        metrics={
            "validation_loss": metrics["eval_loss"],
            **{f"validation_{name}": value for name, value in measured.items()},
        },
        parameters={
            **settings.model_dump(),
            "rows": len(rows) + dropped,
            "rows_left_out": dropped,
            "train_rows": len(train_rows),
            "validation_rows": len(validation_rows),
            "steps": trainer.state.max_steps,
        },
        notes=notes,
    )


def load_for_regions(
    request: TrainingRequest,
    architectures: Sequence[str],
    labels: list[str],
    *,
    image_settings: dict[str, Any] | None = None,
    **model_settings: Any,
) -> tuple[Any, Any]:
    """Return the base with classes for the labels, and its image processor.

    `image_settings` are passed to `load_image_processor`, `model_settings` to `load_base`.

    Raises:
        BadMaterial: the base cannot be used.
    """
    try:
        processor = load_image_processor(request.base, whole=True, **(image_settings or {}))
    except UnsupportedModel as error:
        raise BadMaterial(f"The base cannot be trained. {error}") from error
    model = load_base(
        request.base,
        architectures,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        **model_settings,
    )
    return model, processor


def examples_of(images: RegionImages, progress: Progress) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the example of each image. Raises Canceled."""
    for number in range(len(images)):
        if progress.should_stop():
            raise Canceled
        yield number, images[number]


def _stacked(examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if len({tuple(each["pixel_values"].shape) for each in examples}) > 1:
        raise BadMaterial(
            "The base's processor makes images of different sizes; use one that resizes to a "
            "fixed size."
        )
    columns = {name: [each[name] for each in examples] for name in examples[0]}
    return {
        name: torch.stack(values) if isinstance(values[0], Tensor) else values
        for name, values in columns.items()
    }
