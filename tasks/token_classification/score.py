"""Score labeled passages against regular expressions and phrases of the training data.

nervaluate counts matches (SemEval 2013, task 9). `f1`, `precision` and `recall` require the right
label and exact ends; `overlap_recall` requires the right label and some overlap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nervaluate.entities import Entity as Marked
from nervaluate.strategies import EntityTypeEvaluation, StrictEvaluation

from assay.plugins import run
from tasks.token_classification.baselines import Found, expressions, phrases

EXPRESSIONS = "regular expressions"
PHRASES = "phrases of the training data"
NOTHING = "no passage at all"
SAMPLES = 8
SAMPLE_CHARACTERS = 300
_METRICS = ("f1", "precision", "recall", "overlap_recall")


@dataclass(frozen=True, slots=True)
class Baseline:
    """Spans that a baseline marks in each row."""

    name: str
    spans: list[Found]
    trained_on: int


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return the metrics with intervals, F1 by label and by length of the text.

    Raises:
        BadMaterial: the rows mark no passage.
        Canceled: `request.progress` requests a stop.
    """
    rows = request.rows
    truth: list[Found] = [
        [(span["start"], span["end"], span["label"]) for span in row["spans"]] for row in rows
    ]
    counts = Counter(label for spans in truth for _, _, label in spans)
    if not counts:
        raise run.BadMaterial("The data marks no passage in any row.")
    answers: list[Found] = [
        [(each["start"], each["end"], each["entity_group"]) for each in outcome.results[0]]
        for outcome in request.outcomes
    ]
    baselines = _baselines(request, set(counts))
    measured = count(truth, answers)
    compared = [(each, count(truth, each.spans)) for each in baselines]
    if request.progress.should_stop():
        raise run.Canceled
    metrics = {**micro(measured), **_by_label(truth, answers, counts)}
    first, theirs = max(compared, key=lambda pair: micro(pair[1])["f1"])
    return run.EvaluationResult(
        metrics=metrics,
        baseline=micro(theirs),
        baseline_name=first.name,
        sample_size=len(rows),
        details={
            "per_class": {
                label: {"f1": metrics[f"f1_{label}"], "support": number}
                for label, number in counts.most_common(run.MAX_LABEL_SLICES)
            },
            "samples": [
                {
                    "input": row["text"][:SAMPLE_CHARACTERS],
                    "expected": _words(row["text"], right),
                    "output": _words(row["text"], ours),
                    "baseline": _words(row["text"], simple),
                }
                for row, right, ours, simple in list(
                    zip(rows, truth, answers, first.spans, strict=True)
                )[:SAMPLES]
            ],
            "baselines": [
                {"name": each.name, "metrics": micro(numbers), "trained_on": each.trained_on}
                for each, numbers in sorted(compared, key=lambda pair: pair[0] is not first)
            ],
        },
        intervals={"metrics": _intervals(measured), "baseline": _intervals(theirs)},
        slices=[
            {
                "by": part.by,
                "name": part.name,
                "n": len(part.rows),
                "metric": "f1",
                "value": micro(measured[part.rows])["f1"],
                "baseline": micro(theirs[part.rows])["f1"],
            }
            for part in run.slices_by_length([row["text"] for row in rows])
        ],
    )


def count(truth: Sequence[Found], answers: Sequence[Found]) -> np.ndarray:
    """Return four numbers for each row: exact matches, overlapping matches, answers, and true
    passages."""
    strict, overlap = StrictEvaluation(), EntityTypeEvaluation()
    numbers: list[tuple[int, int, int, int]] = []
    for right, ours in zip(truth, answers, strict=True):
        expected, predicted = _marked(right), _marked(ours)
        exact, _ = strict.evaluate(expected, predicted, [])
        some, _ = overlap.evaluate(expected, predicted, [])
        numbers.append((exact.correct, some.correct, len(predicted), len(expected)))
    return np.array(numbers)


def micro(numbers: np.ndarray) -> dict[str, float]:
    """Return the metrics over all passages of the rows."""
    exact, some, predicted, expected = (int(each) for each in numbers.sum(axis=0))
    return {
        "f1": 2 * exact / max(1, predicted + expected),
        "precision": exact / max(1, predicted),
        "recall": exact / max(1, expected),
        "overlap_recall": some / max(1, expected),
    }


def _marked(spans: Found) -> list[Marked]:
    # In nervaluate, a passage includes its end.
    return [Marked(label, start, end - 1) for start, end, label in spans]


def _baselines(request: run.ScoreRequest, labels: set[str]) -> list[Baseline]:
    texts = [row["text"] for row in request.rows]
    baselines = [Baseline(NOTHING, [[] for _ in texts], 0)]
    if (find := expressions(labels)) is not None:
        baselines.append(Baseline(EXPRESSIONS, [find(text) for text in texts], 0))
    if request.train_rows:
        finder = phrases(request.train_rows)
        baselines.append(
            Baseline(PHRASES, [finder(text) for text in texts], len(request.train_rows))
        )
    return baselines


def _by_label(
    truth: Sequence[Found], answers: Sequence[Found], counts: Counter[str]
) -> dict[str, float]:
    def of(spans: Sequence[Found], label: str) -> list[Found]:
        return [[each for each in row if each[2] == label] for row in spans]

    return {
        f"f1_{label}": micro(count(of(truth, label), of(answers, label)))["f1"]
        for label, _ in counts.most_common(run.MAX_LABEL_SLICES)
    }


def _intervals(numbers: np.ndarray) -> dict[str, dict[str, Any]]:
    values = micro(numbers)
    return {
        name: run.bootstrap(
            values[name],
            lambda rows, name=name: micro(numbers[rows])[name],  # type: ignore[misc]
            len(numbers),
        )
        for name in _METRICS
    }


def _words(text: str, spans: Found) -> str:
    passages = [f"{text[start:end]} ({label})" for start, end, label in spans]
    return (", ".join(passages) or "nothing")[:SAMPLE_CHARACTERS]
