"""Score a voice activity detector on each tenth of a second of the test data.

There are two simple answers: a threshold on loudness (the mean level of the recording, in
decibels), and speech everywhere. The baseline is the better one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from assay.plugins import run

STEP_S = 0.1
RATE = 16_000
LOUDNESS = "loudness threshold"
ALL = "all is speech"
SAMPLES = 8
SHOWN_SEGMENTS = 12


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return F1, precision, recall and accuracy over steps of 0.1 s, with F1 slices by duration.

    Raises:
        BadMaterial: the test data marks no speech.
        Canceled: `request.progress` requests a stop.
    """
    seconds = [outcome.results[0]["duration"] for outcome in request.outcomes]
    truth = [
        _steps(row["segments"], length) for row, length in zip(request.rows, seconds, strict=True)
    ]
    outputs = [
        _steps(outcome.results[0]["segments"], length)
        for outcome, length in zip(request.outcomes, seconds, strict=True)
    ]
    if not any(each.any() for each in truth):
        raise run.BadMaterial("The test data's segments mark no speech.")
    loud = []
    for row, steps in zip(request.rows, truth, strict=True):
        if request.progress.should_stop():
            raise run.Canceled
        loud.append(_loud(row["audio"], len(steps)))
    metrics = _metrics(truth, outputs)
    simple = {LOUDNESS: loud, ALL: [np.ones_like(each) for each in truth]}
    compared = {name: _metrics(truth, answers) for name, answers in simple.items()}
    best = max(compared, key=lambda name: compared[name]["f1"])
    baseline, count = compared[best], len(truth)

    def f1_of(answers: list[np.ndarray]) -> Callable[[Any], float]:
        counts = np.array([_counts(*pair) for pair in zip(truth, answers, strict=True)])
        return lambda rows: _f1(counts[rows].sum(axis=0))

    return run.EvaluationResult(
        metrics=metrics,
        baseline=baseline,
        baseline_name=best,
        sample_size=count,
        details={
            "samples": [
                {
                    "input": f"Recording of {length:.1f} s",
                    "input_audio": row["audio"].name,
                    "expected": _words(row["segments"]),
                    "output": _words(outcome.results[0]["segments"]),
                }
                for row, outcome, length in zip(
                    request.rows[:SAMPLES],
                    request.outcomes[:SAMPLES],
                    seconds[:SAMPLES],
                    strict=True,
                )
            ],
            "baselines": [
                {"name": name, "metrics": compared[name], "trained_on": 0}
                for name in sorted(compared, key=lambda name: name != best)
            ],
        },
        intervals={
            "metrics": {"f1": run.bootstrap(metrics["f1"], f1_of(outputs), count)},
            "baseline": {"f1": run.bootstrap(baseline["f1"], f1_of(simple[best]), count)},
        },
        slices=[
            {
                "by": part.by,
                "name": part.name,
                "n": len(part.rows),
                "metric": "f1",
                "value": f1_of(outputs)(part.rows),
                "baseline": f1_of(simple[best])(part.rows),
            }
            for part in run.slices_by_size(
                [round(length) for length in seconds],
                by="duration",
                names=("short", "medium", "long"),
                unit="s",
            )
        ],
    )


def _steps(segments: list[dict[str, Any]], seconds: float) -> np.ndarray:
    """Return for each step whether its middle is in a segment."""
    middles = (np.arange(max(1, round(seconds / STEP_S))) + 0.5) * STEP_S
    speech = np.zeros(len(middles), bool)
    for segment in segments:
        speech |= (middles >= segment["start"]) & (middles < segment["end"])
    return speech


def _loud(path: Path, count: int) -> np.ndarray:
    """Return the steps that are louder than the recording's mean level."""
    samples = run.read_audio(path, RATE)
    step = int(STEP_S * RATE)
    padded = np.pad(samples, (0, max(0, count * step - len(samples))))[: count * step]
    level = 10 * np.log10(np.square(padded.reshape(count, step)).mean(axis=1) + 1e-10)
    louder: np.ndarray = level > level.mean()
    return louder


def _metrics(truth: list[np.ndarray], answers: list[np.ndarray]) -> dict[str, float]:
    right, predicted = np.concatenate(truth), np.concatenate(answers)
    return {
        "f1": float(f1_score(right, predicted, zero_division=0)),
        "precision": float(precision_score(right, predicted, zero_division=0)),
        "recall": float(recall_score(right, predicted, zero_division=0)),
        "accuracy": float(accuracy_score(right, predicted)),
    }


def _counts(truth: np.ndarray, answer: np.ndarray) -> tuple[int, int]:
    """Return twice the number of true positives, and the number of wrong steps."""
    return 2 * int((truth & answer).sum()), int((truth ^ answer).sum())


def _f1(counts: np.ndarray) -> float:
    return float(counts[0] / max(1, counts.sum()))


def _words(segments: list[dict[str, Any]]) -> str:
    listed = [f"{each['start']:.1f}–{each['end']:.1f} s" for each in segments[:SHOWN_SEGMENTS]]
    more = len(segments) - len(listed)
    return ", ".join(listed) + (f" and {more} more" if more else "") if listed else "no speech"
