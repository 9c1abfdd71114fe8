"""Train a classifier of any input: split, weighted loss, best epoch, saving.

A recipe loads a base with a head for the labels, turns rows into examples, and calls
`fit_classifier`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import train_test_split

from workers.engines.label_adapters import MAX_LABELS
from workers.hyperparameters import ClassifierSettings, LoraSettings
from workers.trainers.adapter_training import save_adapter, with_lora
from workers.trainers.head_training import HeadTrainer
from workers.trainers.protocol import BadMaterial, Progress, TrainingRequest, TrainingResult
from workers.trainers.rows import distinct as distinct
from workers.trainers.training import epoch_arguments, run_trainer

MIN_ROWS_PER_LABEL = 4

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Split:
    """Rows for training and validation, and the labels of both in alphabetical order."""

    labels: list[str]
    train: Rows
    validation: Rows


def split_by_label(rows: Rows, settings: ClassifierSettings, progress: Progress) -> Split:
    """Hold out rows for validation, the same share of each label.

    Raises:
        BadMaterial: there are too few or too many labels, or too few rows of a label.
    """
    counts = Counter(row["label"] for row in rows)
    labels = sorted(counts)
    if not 2 <= len(labels) <= MAX_LABELS:
        raise BadMaterial(f"There are {len(labels)} labels; a classifier has 2 to {MAX_LABELS}.")
    rare = [label for label in labels if counts[label] < MIN_ROWS_PER_LABEL]
    if rare:
        raise BadMaterial(
            f"The label {rare[0]!r} has {counts[rare[0]]} rows; each needs {MIN_ROWS_PER_LABEL}."
        )
    size = max(round(len(rows) * settings.validation_fraction), len(labels))
    train, validation = train_test_split(
        rows,
        test_size=size,
        random_state=settings.seed,
        stratify=[row["label"] for row in rows],
    )
    progress.log(
        f"{len(train)} rows to train on and {len(validation)} to validate on, "
        f"labels {', '.join(labels)}."
    )
    return Split(labels, train, validation)


@dataclass(frozen=True, slots=True)
class Head:
    """The classifier on top of a base: parts of its parameters' names, and its learning rate."""

    names: tuple[str, ...]
    learning_rate: float


def fit_classifier(
    request: TrainingRequest,
    progress: Progress,
    *,
    model: Any,
    processor: Any,
    head: Head,
    split: Split,
    settings: ClassifierSettings,
    examples: Callable[[Rows], Any],
    collator: Callable[[list[Any]], dict[str, Any]],
    parameters: Mapping[str, Any],
    rows_cut: Callable[[], int] = lambda: 0,
    sampling: str = "random",
) -> TrainingResult:
    """Train, keep the epoch with the best macro-F1 on the validation rows, and save it.

    Settings that are `LoraSettings` train and save an adapter.

    Args:
        request: The run.
        progress: Receives reports; checked for cancellation before each forward pass.
        model: A transformers classifier with one output for each label of `split`.
        processor: Saved with a whole model: its tokenizer or image processor.
        head: The randomly initialized part of the model.
        split: The rows.
        settings: Settings of the training.
        examples: Makes a dataset of {…, "labels": number} from rows.
        collator: Makes a batch from examples.
        parameters: Recorded with the version in addition to the settings.
        rows_cut: Returns the number of rows that were cut; called after all were read.
        sampling: Order of the training rows: "random" or "group_by_length".

    Raises:
        BadMaterial: the model has no layer for LoRA.
        Canceled: `progress` requested the end.
    """
    save: Callable[[Path], None] | None = None
    if isinstance(settings, LoraSettings):
        model = with_lora(model, head.names, settings, progress)
        save = partial(save_adapter, model, labels=split.labels)
    trainer = HeadTrainer(
        head=head.names,
        head_rate=head.learning_rate,
        progress=progress,
        model=model,
        compute_loss_func=_loss(_weights(split) if settings.class_weights else None),
        args=epoch_arguments(
            request,
            settings,
            len(split.train),
            best="macro_f1",
            train_sampling_strategy=sampling,
        ),
        train_dataset=examples(split.train),
        eval_dataset=examples(split.validation),
        data_collator=collator,
        compute_metrics=_metrics,
    )
    metrics, notes = run_trainer(trainer, processor, request, progress, save=save)
    return TrainingResult(
        metrics={
            "validation_accuracy": metrics["eval_accuracy"],
            "validation_macro_f1": metrics["eval_macro_f1"],
            "validation_loss": metrics["eval_loss"],
        },
        parameters={
            **settings.model_dump(),
            "train_rows": len(split.train),
            "validation_rows": len(split.validation),
            "steps": trainer.state.max_steps,
            **parameters,
        },
        notes=notes,
        rows_cut=rows_cut(),
    )


def _weights(split: Split) -> torch.Tensor:
    """Return the inverse square root of each label's relative frequency: a rare label gets more
    weight, but does not dominate the others.
    """
    counts = Counter(row["label"] for row in split.train)
    total = len(split.train)
    return torch.tensor(
        [(total / (len(split.labels) * counts[label])) ** 0.5 for label in split.labels]
    )


def _metrics(prediction: Any) -> dict[str, float]:
    guesses, truth = np.argmax(prediction.predictions, axis=-1), prediction.label_ids
    return {
        "accuracy": float(accuracy_score(truth, guesses)),
        "macro_f1": float(f1_score(truth, guesses, average="macro", zero_division=0)),
    }


def _loss(weights: torch.Tensor | None) -> Callable[..., torch.Tensor]:
    """Return cross-entropy, weighted by label."""

    def loss(outputs: Any, labels: torch.Tensor, **_: Any) -> torch.Tensor:
        moved = None if weights is None else weights.to(outputs.logits.device)
        value: torch.Tensor = torch.nn.functional.cross_entropy(
            outputs.logits, labels, weight=moved
        )
        return value

    return loss
