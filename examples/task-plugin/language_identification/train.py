"""Train the classifier: multinomial logistic regression by gradient descent (AdaGrad)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import train_test_split

from assay.plugins import run
from language_identification import TASK, Hyperparameters
from language_identification.ngrams import features, load, save, softmax

MIN_ROWS_PER_LABEL = 4


def train(request: run.TrainingRequest, progress: run.Progress) -> run.TrainingResult:
    """Continue from the base: its languages keep their weights, new ones start at zero.

    Raises:
        BadMaterial: rows, settings or base cannot be used.
        Canceled: `progress` requests a stop.
    """
    settings = run.parse_settings(Hyperparameters, request.hyperparameters)
    rows = run.read_rows(request.train_file, _is_row, '{"text": "…", "label": "…"}')
    try:
        weights, bias, base_labels = load(request.base, TASK.architectures)
    except run.UnsupportedModel as error:
        raise run.BadMaterial(f"The base cannot be trained. {error}") from error
    labels = [*base_labels, *sorted({row["label"] for row in rows} - set(base_labels))]
    weights, bias = _widened(weights, bias, len(labels))
    training, held_out = _split(rows, settings)
    progress.log(
        f"{len(training):,} rows to train on, {len(held_out):,} to validate on; "
        f"languages: {', '.join(labels)}."
    )
    inputs = features([row["text"] for row in training], weights.shape[1])
    targets = np.array([labels.index(row["label"]) for row in training])
    _descend(weights, bias, inputs, targets, settings, progress)
    measured = _measure(weights, bias, labels, held_out)
    save(request.output, weights, bias, labels)
    return run.TrainingResult(
        metrics=measured,
        parameters={
            **settings.model_dump(),
            "train_rows": len(training),
            "validation_rows": len(held_out),
            "rows": len(rows),
        },
        notes=f"The model identifies {len(labels)} languages.",
    )


def _is_row(row: Any) -> bool:
    return all(isinstance(row.get(name), str) and row[name] for name in ("text", "label"))


def _widened(weights: np.ndarray, bias: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    wide = np.zeros((count, weights.shape[1]), dtype=np.float64)
    wide[: len(weights)] = weights
    wide_bias = np.zeros(count, dtype=np.float64)
    wide_bias[: len(bias)] = bias
    return wide, wide_bias


def _split(
    rows: list[dict[str, Any]], settings: Hyperparameters
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Split off validation rows, with the same share of each language."""
    counts = Counter(row["label"] for row in rows)
    if len(counts) < 2:
        raise run.BadMaterial("The data has one language; a classifier needs at least two.")
    rarest, count = min(counts.items(), key=lambda each: each[1])
    if count < MIN_ROWS_PER_LABEL:
        raise run.BadMaterial(
            f"The language {rarest!r} has {count} rows; each needs {MIN_ROWS_PER_LABEL}."
        )
    size = max(round(len(rows) * settings.validation_fraction), len(counts))
    training, held_out = train_test_split(
        rows,
        test_size=size,
        random_state=settings.seed,
        stratify=[row["label"] for row in rows],
    )
    return training, held_out


def _descend(
    weights: np.ndarray,
    bias: np.ndarray,
    inputs: Any,
    targets: np.ndarray,
    settings: Hyperparameters,
    progress: run.Progress,
) -> None:
    """Change `weights` and `bias` in place, batch by batch."""
    shuffle = np.random.default_rng(settings.seed)
    squares = np.full_like(weights, 1e-6)
    for epoch in range(1, settings.epochs + 1):
        losses: list[float] = []
        order = shuffle.permutation(inputs.shape[0])
        for start in range(0, len(order), settings.batch_size):
            if progress.should_stop():
                raise run.Canceled
            places = order[start : start + settings.batch_size]
            batch, right = inputs[places], (np.arange(len(places)), targets[places])
            errors = softmax(batch @ weights.T + bias)
            losses.append(float(-np.log(np.maximum(errors[right], 1e-12)).mean()))
            errors[right] -= 1.0
            errors /= len(places)
            slope = (batch.T @ errors).T
            squares += slope**2
            weights -= settings.learning_rate * slope / np.sqrt(squares)
            bias -= settings.learning_rate * errors.sum(axis=0)
        progress.metric(epoch, settings.epochs, {"loss": float(np.mean(losses))})


def _measure(
    weights: np.ndarray, bias: np.ndarray, labels: list[str], rows: list[dict[str, Any]]
) -> dict[str, float]:
    truth = [row["label"] for row in rows]
    scores = features([row["text"] for row in rows], weights.shape[1]) @ weights.T + bias
    guesses = [labels[index] for index in scores.argmax(axis=1)]
    return {
        "validation_accuracy": float(accuracy_score(truth, guesses)),
        "validation_macro_f1": float(f1_score(truth, guesses, average="macro", zero_division=0)),
    }
