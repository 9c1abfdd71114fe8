"""Scores of any classifier: accuracy, macro-F1 and F1 by label, with baselines on the same rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from workers.trainers.evaluation import Outcome
from workers.trainers.protocol import BadMaterial, EvaluationResult
from workers.trainers.slices import Part, by_label
from workers.trainers.uncertainty import f1_intervals

# Rows of an evaluation that are shown as examples.
SAMPLES = 8
# Limit on the rows whose outcomes are stored, as 16 kB of hexadecimal.
RIGHT_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class Baseline:
    """The guess of a simple classifier for each test row. `trained_on` counts its training rows."""

    name: str
    guesses: list[str]
    trained_on: int


def majority(truth: Sequence[str]) -> Baseline:
    """Return the best constant answer: the most frequent label of the same rows."""
    label, _ = Counter(truth).most_common(1)[0]
    return Baseline(f"always “{label}”", [label] * len(truth), 0)


def score_classifier(
    *,
    truth: Sequence[str],
    outcomes: Sequence[Outcome],
    samples: Sequence[dict[str, Any]],
    baselines: Sequence[Baseline] = (),
    slices: Sequence[Part] = (),
) -> EvaluationResult:
    """Compare the best label of each outcome with `truth`.

    Args:
        truth: The right label of each row.
        outcomes: For each row one result [{label, score}, …] of every label, best first.
        samples: Fields of each row to show with its sample, such as {"input": text}.
        baselines: Baselines on the same rows; metrics are compared with the first one. The best
            constant answer is always added as the last.
        slices: Slices on which to measure accuracy, in addition to those by label.

    Raises:
        BadMaterial: the version does not know the label of a row.
    """
    truth = list(truth)
    ranked = [outcome.results[0] for outcome in outcomes]
    labels = sorted(entry["label"] for entry in ranked[0])
    unknown = sorted(set(truth) - set(labels))
    if unknown:
        raise BadMaterial(
            f"The data has the label {unknown[0]!r}; the version knows {', '.join(labels)}."
        )
    guesses = [entries[0]["label"] for entries in ranked]
    usable = [each for each in baselines if set(each.guesses) <= set(labels)]
    compared = [*usable, majority(truth)]
    first = compared[0]
    metrics = _scores(truth, guesses, labels)
    baseline = _scores(truth, first.guesses, labels)
    return EvaluationResult(
        metrics=metrics,
        baseline=baseline,
        baseline_name=first.name,
        sample_size=len(truth),
        details={
            "confusion_matrix": {
                "labels": labels,
                "matrix": confusion_matrix(truth, guesses, labels=labels).tolist(),
            },
            "per_class": {
                label: {"f1": metrics[f"f1_{label}"], "support": truth.count(label)}
                for label in labels
            },
            "samples": [
                {
                    **row,
                    "expected": expected,
                    "output": entries[0]["label"],
                    "score": round(float(entries[0]["score"]), 4),
                }
                for row, expected, entries in zip(
                    samples[:SAMPLES], truth[:SAMPLES], ranked[:SAMPLES], strict=True
                )
            ],
            "baselines": [_baseline(each, truth, labels) for each in compared],
            **_right(truth, guesses),
        },
        intervals={
            "metrics": f1_intervals(*_numbers(truth, guesses, labels), metrics, labels),
            "baseline": f1_intervals(*_numbers(truth, first.guesses, labels), baseline, labels),
        },
        slices=_slices(truth, guesses, first, [*by_label(truth), *slices]),
    )


def _baseline(baseline: Baseline, truth: list[str], labels: list[str]) -> dict[str, Any]:
    scores = _scores(truth, baseline.guesses, labels)
    return {
        "name": baseline.name,
        "metrics": {name: scores[name] for name in ("accuracy", "macro_f1")},
        "trained_on": baseline.trained_on,
        **_right(truth, baseline.guesses),
    }


def _numbers(
    truth: list[str], guesses: list[str], labels: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    number = {label: index for index, label in enumerate(labels)}
    return (
        np.array([number[label] for label in truth]),
        np.array([number[label] for label in guesses]),
    )


def _right(truth: list[str], guesses: list[str]) -> dict[str, Any]:
    """Return one bit for each row, set if it was right; nothing if there are too many rows."""
    if len(truth) > RIGHT_ROWS:
        return {}
    right = [label == guess for label, guess in zip(truth, guesses, strict=True)]
    return {"right": {"n": len(right), "bits": np.packbits(right).tobytes().hex()}}


def _slices(
    truth: list[str], guesses: list[str], compared: Baseline, parts: Sequence[Part]
) -> list[dict[str, Any]]:
    """Return the accuracy on each part. On the part of one label, accuracy is recall, for which a
    constant answer is not a meaningful baseline."""
    right = np.array([label == guess for label, guess in zip(truth, guesses, strict=True)])
    baseline_right = np.array(
        [label == guess for label, guess in zip(truth, compared.guesses, strict=True)]
    )
    constant = compared.trained_on == 0
    return [
        {
            "by": part.by,
            "name": part.name,
            "n": len(part.rows),
            "metric": "accuracy",
            "value": float(right[part.rows].mean()),
            "baseline": None
            if constant and part.by == "label"
            else float(baseline_right[part.rows].mean()),
        }
        for part in parts
    ]


def _scores(truth: list[str], guesses: list[str], labels: list[str]) -> dict[str, float]:
    by_label = f1_score(truth, guesses, labels=labels, average=None, zero_division=0)
    return {
        "accuracy": float(accuracy_score(truth, guesses)),
        "macro_f1": float(np.mean(by_label)),
        **{f"f1_{label}": float(score) for label, score in zip(labels, by_label, strict=True)},
    }
