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
# Drawing more rows a thousand times takes long, and their interval is narrow.
MAX_RESAMPLED = 20_000
# Probabilities of one model, computed here and in float32.
_SAME = 1e-3
_SHOWN = 6


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return accuracy, macro-F1, F1 by label and AUC; accuracy by label too.

    AUC is the mean over the labels, each against all others. With training rows, logistic
    regression is trained on them and is then the baseline that numbers are compared with; the best
    constant answer has an AUC of 0.5.

    Raises:
        BadMaterial: a row has a label that the version does not know.
        Canceled: `request.progress` requests a stop.
    """
    truth = [row["label"] for row in request.rows]
    labels = sorted(entry["label"] for entry in request.outcomes[0].results[0])
    found = np.array(
        [
            [{each["label"]: each["score"] for each in outcome.results[0]}[name] for name in labels]
            for outcome in request.outcomes
        ]
    )
    linear = _linear(request.train_rows, request.rows, labels, request.progress)
    if linear is not None and np.abs(linear - found).max() < _SAME:
        request.progress.log(f"{LINEAR} is no baseline here: the version is the same one.")
        linear = None
    baselines = []
    if linear is not None and request.train_rows is not None:
        guesses = [labels[index] for index in linear.argmax(axis=1)]
        baselines.append(run.Baseline(LINEAR, guesses, len(request.train_rows)))
    result = run.score_classifier(
        truth=truth,
        outcomes=request.outcomes,
        shown=[{"input": _words(row["features"])} for row in request.rows[: run.MAX_SAMPLES]],
        baselines=baselines,
    )
    is_label = np.array([[label == name for name in labels] for label in truth])
    return _with_auc(result, is_label, found, linear)


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
    known = sorted({row["label"] for row in train})
    if not set(known) <= set(labels) or len(known) < 2:
        progress.log(f"{LINEAR} was not trained: its labels are not those of the version.")
        return None
    model = fit_linear(columns, np.searchsorted(known, [row["label"] for row in train]), 1.0)
    found = np.zeros((len(rows), len(labels)))
    found[:, [labels.index(name) for name in known]] = linear_probabilities(model, tested)
    progress.log(f"{LINEAR}: trained on {len(train):,} rows in {time.monotonic() - started:.1f} s.")
    return found


def _with_auc(
    result: run.EvaluationResult,
    is_label: np.ndarray,
    found: np.ndarray,
    linear: np.ndarray | None,
) -> run.EvaluationResult:
    compared = np.full_like(found, 1 / found.shape[1]) if linear is None else linear
    areas = {"metrics": _auc(is_label, found), "baseline": _auc(is_label, compared)}
    area = areas["baseline"]
    baselines = [
        {**each, "metrics": {**each["metrics"], "auc": 0.5 if each["trained_on"] == 0 else area}}
        for each in result.details["baselines"]
    ]
    intervals = {name: dict(each) for name, each in result.intervals.items()}
    if len(found) <= MAX_RESAMPLED:
        for name, scores in (("metrics", found), ("baseline", compared)):
            intervals[name]["auc"] = run.bootstrap(
                areas[name],
                lambda rows, scores=scores: _auc(is_label[rows], scores[rows]),  # type: ignore[misc]
                len(found),
            )
    return dataclasses.replace(
        result,
        metrics={**result.metrics, "auc": areas["metrics"]},
        baseline={**result.baseline, "auc": areas["baseline"]},
        details={**result.details, "baselines": baselines},
        intervals=intervals,
    )


def _auc(is_label: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the ROC curve, the mean over the labels that some rows have and some
    do not; 0.5 where there is none. Ties count half."""
    positive = is_label.sum(axis=0)
    usable = (positive > 0) & (positive < len(is_label))
    if not usable.any():
        return 0.5
    ranks = rankdata(scores[:, usable], axis=0)
    positive = positive[usable]
    above = (ranks * is_label[:, usable]).sum(axis=0) - positive * (positive + 1) / 2
    return float((above / (positive * (len(is_label) - positive))).mean())


def _words(features: dict[str, Any]) -> str:
    shown = [
        f"{name} {format(value, 'g') if isinstance(value, float) else value or '–'}"
        for name, value in list(features.items())[:_SHOWN]
    ]
    return ", ".join(shown) + (", …" if len(features) > _SHOWN else "")
