"""Train a classifier of records: boosted trees or logistic regression, saved as ONNX."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.model_selection import train_test_split

from assay.plugins import declare, run
from assay_tasks_extra.tabular_classification import (
    TASK,
    BoostingHyperparameters,
    Hyperparameters,
    LinearHyperparameters,
)
from assay_tasks_extra.tabular_classification.encoding import describe, encoded_rows
from assay_tasks_extra.tabular_classification.graphs import Linear, linear_graph, tree_graph
from assay_tasks_extra.tabular_classification.schema import MAX_LABELS, LabeledRecord

MIN_ROWS_PER_LABEL = 4
# Rounds between two measurements on the validation rows.
ROUNDS = 10
MAX_ITERATIONS = 1_000


@dataclass(frozen=True, slots=True)
class Material:
    """Columns and label numbers of all rows, and the mask of held-out rows."""

    features: list[declare.Feature]
    labels: list[str]
    columns: np.ndarray
    numbers: np.ndarray
    held_out: np.ndarray

    @property
    def train(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows to train on while choosing settings."""
        return self.columns[~self.held_out], self.numbers[~self.held_out]


def train_trees(request: run.TrainingRequest, progress: run.Progress) -> run.TrainingResult:
    """Train boosted trees: choose the number of rounds on held-out rows, then train on all rows.

    Raises:
        BadMaterial: Rows, settings or base cannot be used.
        Canceled: `progress` requests a stop.
    """
    settings = run.parse_settings(BoostingHyperparameters, request.hyperparameters)
    material = _read(request, settings, progress)
    model = _trees(settings)
    losses: dict[int, float] = {}
    best = np.empty(0)
    for rounds in range(ROUNDS, settings.rounds + ROUNDS, ROUNDS):
        rounds = min(rounds, settings.rounds)
        _grow(model, rounds, material.train, progress)
        probabilities = model.predict_proba(material.columns[material.held_out])
        losses[rounds] = _loss(probabilities, material)
        progress.metric(rounds, settings.rounds, {"validation_loss": losses[rounds]})
        if losses[rounds] == min(losses.values()):
            best = probabilities
    best_rounds = min(losses, key=lambda rounds: losses[rounds])
    final = _trees(settings)
    for rounds in range(ROUNDS, best_rounds + ROUNDS, ROUNDS):
        _grow(final, min(rounds, best_rounds), (material.columns, material.numbers), progress)
    graph = tree_graph(
        [[tree.nodes for tree in trees] for trees in final._predictors],
        final._baseline_prediction.ravel().tolist(),
        material.columns.shape[1],
        len(material.labels),
    )
    notes = (
        f"{best_rounds} rounds had the lowest loss on the held-out rows; then trained on all rows."
    )
    return _result(request, material, settings, graph, best, {"rounds": best_rounds}, notes)


def _trees(settings: BoostingHyperparameters) -> Any:
    return HistGradientBoostingClassifier(
        learning_rate=settings.learning_rate,
        max_leaf_nodes=settings.max_leaves,
        min_samples_leaf=settings.min_rows_in_leaf,
        l2_regularization=settings.l2,
        early_stopping=False,
        warm_start=True,
        random_state=settings.seed,
    )


def _grow(
    model: Any, rounds: int, rows: tuple[np.ndarray, np.ndarray], progress: run.Progress
) -> None:
    """Continue training up to a number of rounds. Raises Canceled."""
    if progress.should_stop():
        raise run.Canceled
    model.set_params(max_iter=rounds)
    model.fit(*rows)


def train_linear(request: run.TrainingRequest, progress: run.Progress) -> run.TrainingResult:
    """Train a logistic regression over standardized columns: measure it on held-out rows, then
    train it on all rows.

    Raises:
        BadMaterial: Rows, settings or base cannot be used.
        Canceled: `progress` requests a stop.
    """
    settings = run.parse_settings(LinearHyperparameters, request.hyperparameters)
    material = _read(request, settings, progress)
    if progress.should_stop():
        raise run.Canceled
    model = fit_linear(*material.train, settings.inverse_regularization)
    probabilities = linear_probabilities(model, material.columns[material.held_out])
    progress.metric(1, 1, {"validation_loss": _loss(probabilities, material)})
    if progress.should_stop():
        raise run.Canceled
    final = fit_linear(material.columns, material.numbers, settings.inverse_regularization)
    notes = "Measured on the held-out rows; then trained on all rows."
    return _result(request, material, settings, linear_graph(final), probabilities, {}, notes)


def fit_linear(columns: np.ndarray, labels: np.ndarray, inverse_regularization: float) -> Linear:
    """Return a logistic regression of labels 0 to n - 1; the median replaces missing numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        fill = np.nan_to_num(np.nanmedian(columns, axis=0))
    filled = np.where(np.isnan(columns), fill, columns).astype(np.float64)
    mean, scale = filled.mean(axis=0), filled.std(axis=0)
    scale[scale == 0] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=inverse_regularization, max_iter=MAX_ITERATIONS)
        model.fit((filled - mean) / scale, labels)
    weights, bias = model.coef_.T, model.intercept_
    if len(model.classes_) == 2:
        # The model has one score, of the second label; the first label's score is 0.
        weights = np.hstack([np.zeros_like(weights), weights])
        bias = np.array([0.0, bias[0]])
    return Linear(fill, mean, scale, weights, bias)


def linear_probabilities(model: Linear, columns: np.ndarray) -> np.ndarray:
    """Return the probability of each label, [rows, labels]."""
    filled = np.where(np.isnan(columns), model.fill, columns)
    scores = ((filled - model.mean) / model.scale) @ model.weights + model.bias
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def _read(
    request: run.TrainingRequest, settings: Hyperparameters, progress: run.Progress
) -> Material:
    try:
        run.architecture_of(request.base, TASK.architectures)
    except run.UnsupportedModel as error:
        raise run.BadMaterial(f"The base cannot be trained. {error}") from error
    rows = run.read_valid_rows(request.train_file, LabeledRecord)
    labels, counts = np.unique([row["label"] for row in rows], return_counts=True)
    if not 2 <= len(labels) <= MAX_LABELS:
        raise run.BadMaterial(
            f"There are {len(labels)} labels; a classifier has 2 to {MAX_LABELS}."
        )
    if counts.min() < MIN_ROWS_PER_LABEL:
        rare = labels[counts.argmin()]
        raise run.BadMaterial(
            f"The label {str(rare)!r} has {counts.min()} rows; each needs {MIN_ROWS_PER_LABEL}."
        )
    features = describe(rows)
    columns = encoded_rows(features, rows)
    numbers = np.searchsorted(labels, [row["label"] for row in rows])
    size = max(round(len(rows) * settings.validation_fraction), len(labels))
    _, held_out = train_test_split(
        np.arange(len(rows)), test_size=size, random_state=settings.seed, stratify=numbers
    )
    progress.log(
        f"{len(rows):,} rows, {size:,} of them held out; {len(features)} features in "
        f"{columns.shape[1]} columns, labels {', '.join(labels)}."
    )
    mask = np.zeros(len(rows), bool)
    mask[held_out] = True
    return Material(features, labels.tolist(), columns, numbers, mask)


def _loss(probabilities: np.ndarray, material: Material) -> float:
    truth = material.numbers[material.held_out]
    return float(log_loss(truth, probabilities, labels=np.arange(len(material.labels))))


def _result(
    request: run.TrainingRequest,
    material: Material,
    settings: Hyperparameters,
    graph: Any,
    probabilities: np.ndarray,
    parameters: dict[str, Any],
    notes: str,
) -> run.TrainingResult:
    """Save the model, and return the metrics of `probabilities` on the held-out rows."""
    request.output.mkdir(parents=True, exist_ok=True)
    save_model(request.output, graph, features=material.features, labels=material.labels)
    truth, guesses = material.numbers[material.held_out], probabilities.argmax(axis=1)
    return run.TrainingResult(
        metrics={
            "validation_accuracy": float(accuracy_score(truth, guesses)),
            "validation_macro_f1": float(f1_score(truth, guesses, average="macro")),
            "validation_loss": _loss(probabilities, material),
        },
        parameters={
            **settings.model_dump(),
            **parameters,
            "train_rows": len(material.numbers),
            "validation_rows": len(truth),
        },
        notes=notes,
    )


def save_model(
    folder: Path, graph: Any, *, features: Sequence[declare.Feature], labels: Sequence[str]
) -> None:
    """Write `model.onnx`, and `config.json` with its features and labels."""
    onnx.save(graph, folder / "model.onnx")
    config = {
        "architectures": list(TASK.architectures),
        "features": [each.model_dump() for each in features],
        "labels": list(labels),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
