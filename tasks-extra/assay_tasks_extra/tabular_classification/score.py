"""Score a classifier of records: accuracy, F1 and AUC, against logistic regression."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from assay.plugins import run
from assay_tasks_extra.tabular_classification.encoding import Misfit, describe, encoded_rows
from assay_tasks_extra.tabular_classification.train import fit_linear, linear_probabilities

LINEAR = "Logistic regression"
# Maximum rows for an interval: resampling more takes long, and their interval is narrow.
MAX_RESAMPLED = 20_000
# Tolerance between the probabilities of one model in float64 and in float32.
_SAME = 1e-3
_SHOWN = 6


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return accuracy, macro-F1, F1 by label and AUC, with accuracy slices by label.

    AUC is the mean over the labels, each against all others. With training rows, the baseline is
    logistic regression, trained on those rows; the best constant answer has an AUC of 0.5.

    Raises:
        BadMaterial: a row has a label that the version does not know.
        Canceled: `request.progress` requests a stop.
    """
    truth = [row["label"] for row in request.rows]
    labels = sorted(entry["label"] for entry in request.outcomes[0].results[0])
    scores = np.array(
        [
            [{each["label"]: each["score"] for each in outcome.results[0]}[name] for name in labels]
            for outcome in request.outcomes
        ]
    )
    linear = _linear(request.train_rows, request.rows, labels, request.progress)
    if linear is not None and np.abs(linear - scores).max() < _SAME:
        request.progress.log(f"{LINEAR} is not a baseline here: the version is the same model.")
        linear = None
    baselines = []
    if linear is not None and request.train_rows is not None:
        guesses = [labels[index] for index in linear.argmax(axis=1)]
        baselines.append(run.Baseline(LINEAR, guesses, len(request.train_rows)))
    result = run.score_classifier(
        truth=truth,
        outcomes=request.outcomes,
        samples=[{"input": _words(row["features"])} for row in request.rows[: run.MAX_SAMPLES]],
        baselines=baselines,
    )
    is_label = np.array([[label == name for name in labels] for label in truth])
    return _with_auc(result, is_label, scores, linear)


def _linear(
    train: list[dict[str, Any]] | None,
    rows: Sequence[dict[str, Any]],
    labels: list[str],
    progress: run.Progress,
) -> np.ndarray | None:
    """Return a logistic regression's probabilities for `rows`, [rows, labels]."""
    if progress.should_stop():
        raise run.Canceled
    if not train:
        return None
    started = time.monotonic()
    try:
        features = describe(train)
        columns = encoded_rows(features, train)
        tested = encoded_rows(features, rows)
    except (Misfit, run.BadMaterial) as error:
        progress.log(f"{LINEAR} was not trained: {error}")
        return None
    train_labels = sorted({row["label"] for row in train})
    if not set(train_labels) <= set(labels) or len(train_labels) < 2:
        progress.log(f"{LINEAR} was not trained: its labels differ from the version's.")
        return None
    model = fit_linear(columns, np.searchsorted(train_labels, [row["label"] for row in train]), 1.0)
    probabilities = np.zeros((len(rows), len(labels)))
    probabilities[:, [labels.index(name) for name in train_labels]] = linear_probabilities(
        model, tested
    )
    progress.log(f"{LINEAR}: trained on {len(train):,} rows in {time.monotonic() - started:.1f} s.")
    return probabilities


def _with_auc(
    result: run.EvaluationResult,
    is_label: np.ndarray,
    probabilities: np.ndarray,
    linear: np.ndarray | None,
) -> run.EvaluationResult:
    compared = np.full_like(probabilities, 1 / probabilities.shape[1]) if linear is None else linear
    areas = {"metrics": _auc(is_label, probabilities), "baseline": _auc(is_label, compared)}
    area = areas["baseline"]
    baselines = [
        {**each, "metrics": {**each["metrics"], "auc": 0.5 if each["trained_on"] == 0 else area}}
        for each in result.details["baselines"]
    ]
    intervals = {name: dict(each) for name, each in result.intervals.items()}
    if len(probabilities) <= MAX_RESAMPLED:
        for name, scores in (("metrics", probabilities), ("baseline", compared)):
            intervals[name]["auc"] = run.bootstrap(
                areas[name],
                lambda rows, scores=scores: _auc(is_label[rows], scores[rows]),  # type: ignore[misc]
                len(probabilities),
            )
    return dataclasses.replace(
        result,
        metrics={**result.metrics, "auc": areas["metrics"]},
        baseline={**result.baseline, "auc": areas["baseline"]},
        details={**result.details, "baselines": baselines},
        intervals=intervals,
    )


def _auc(is_label: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the ROC curve, the mean over labels that some but not all rows have;
    0.5 without such labels. Ties count half."""
    positive = is_label.sum(axis=0)
    usable = (positive > 0) & (positive < len(is_label))
    if not usable.any():
        return 0.5
    ranks = rankdata(scores[:, usable], axis=0)
    positive = positive[usable]
    above = (ranks * is_label[:, usable]).sum(axis=0) - positive * (positive + 1) / 2
    return float((above / (positive * (len(is_label) - positive))).mean())


def _words(features: dict[str, Any]) -> str:
    features_shown = [
        f"{name} {format(value, 'g') if isinstance(value, float) else value or '–'}"
        for name, value in list(features.items())[:_SHOWN]
    ]
    return ", ".join(features_shown) + (", …" if len(features) > _SHOWN else "")
