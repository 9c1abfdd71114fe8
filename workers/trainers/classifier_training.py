"""Training of a classifier, whatever it reads: split, weighted loss, best epoch, saving.

A recipe loads a base with a head for the labels, turns rows into examples, and calls
`fit_classifier`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import train_test_split

from workers.hyperparameters import ClassifierSettings
from workers.trainers.material import distinct as distinct
from workers.trainers.protocol import BadMaterial, Progress, TrainingRequest, TrainingResult
from workers.trainers.training import (
    MonitoredTrainer,
    arguments,
    fast_bfloat16,
    run_trainer,
    step_count,
)

MAX_LABELS = 1_000
MIN_ROWS_PER_LABEL = 4

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Split:
    """Rows to train on and to validate on, and the labels of both in alphabetical order."""

    labels: list[str]
    train: Rows
    validation: Rows


def split_by_label(rows: Rows, settings: ClassifierSettings, progress: Progress) -> Split:
    """Hold out rows for validation, the same share of each label.

    Raises:
        BadMaterial: there are too few or too many labels, or too few rows of one.
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

    Args:
        request: The run.
        progress: Told what happens; asked to stop before each forward pass.
        model: A transformers classifier with one output for each label of `split`.
        processor: Saved with the model: its tokenizer or image processor.
        head: The part that starts from random numbers.
        split: The rows.
        settings: How to train.
        examples: Makes a dataset of {…, "labels": number} from rows.
        collator: Makes a batch from examples.
        parameters: Recorded with the version in addition to the settings.
        rows_cut: Returns how many rows lost a part, once all were read.
        sampling: Order of the training rows: "random" or "group_by_length".

    Raises:
        Canceled: `progress` said so.
    """
    steps = step_count(len(split.train), settings)
    trainer = _HeadedTrainer(
        head=head,
        progress=progress,
        model=model,
        compute_loss_func=_loss(_weights(split) if settings.class_weights else None),
        args=arguments(
            request,
            settings.seed,
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            per_device_train_batch_size=settings.batch_size,
            per_device_eval_batch_size=32,
            weight_decay=settings.weight_decay,
            warmup_steps=round(steps * settings.warmup_ratio),
            train_sampling_strategy=sampling,
            eval_strategy="epoch",
            save_strategy="epoch",
            load_best_model_at_end=True,
            metric_for_best_model="macro_f1",
            greater_is_better=True,
            bf16=fast_bfloat16(),
        ),
        train_dataset=examples(split.train),
        eval_dataset=examples(split.validation),
        data_collator=collator,
        compute_metrics=_metrics,
    )
    metrics, notes = run_trainer(trainer, processor, request, progress)
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
    """Inverse to the square root of each label's frequency: a rare label counts for more, but a few
    of its rows do not drown all others.
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


class _HeadedTrainer(MonitoredTrainer):
    """Trains the head at a rate of its own."""

    def __init__(self, *, head: Head, **rest: Any) -> None:
        super().__init__(**rest)
        self._head = head

    def create_optimizer(self, *given: Any, **rest: Any) -> Any:
        head: list[torch.nn.Parameter] = []
        others: list[torch.nn.Parameter] = []
        for name, parameter in self.model.named_parameters():
            is_head = any(part in self._head.names for part in name.split("."))
            (head if is_head else others).append(parameter)
        self.optimizer = torch.optim.AdamW(
            [{"params": others}, {"params": head, "lr": self._head.learning_rate}],
            lr=self.args.learning_rate,
            weight_decay=self.args.weight_decay,
        )
        return self.optimizer
