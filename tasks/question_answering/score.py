"""Score answers as SQuAD does, against the sentence with most words of the question."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from torchmetrics.functional.text import squad

from assay.plugins import run

SENTENCE = "sentence with most words in common"
FIRST = "first sentence"
SAMPLES = 8
SAMPLE_CHARACTERS = 300
_METRICS = ("exact_match", "f1")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return exact match and F1 of words (Rajpurkar and others 2016, arXiv:1606.05250).

    Raises:
        Canceled: `request.progress` requests a stop.
    """
    rows = request.rows
    outputs = [str(outcome.results[0][0]["answer"]) for outcome in request.outcomes]
    overlap = [_best_sentence(row["question"], row["context"]) for row in rows]
    first = [_sentences(row["context"])[0] for row in rows]
    measured: list[np.ndarray] = []
    for answers in (outputs, overlap, first):
        if request.progress.should_stop():
            raise run.Canceled
        measured.append(by_row(rows, answers))
    ours, theirs, firsts = measured
    return run.EvaluationResult(
        metrics=_means(ours),
        baseline=_means(theirs),
        baseline_name=SENTENCE,
        sample_size=len(rows),
        details={
            "samples": [
                {
                    "input": f"{row['question']}\n{row['context']}"[:SAMPLE_CHARACTERS],
                    "expected": (right_answers(row)[0] or "not answered by the text"),
                    "output": answer[:SAMPLE_CHARACTERS] or "not answered by the text",
                    "baseline": simple[:SAMPLE_CHARACTERS],
                    "score": round(float(outcome.results[0][0]["score"]), 4),
                }
                for row, answer, simple, outcome in list(
                    zip(rows, outputs, overlap, request.outcomes, strict=True)
                )[:SAMPLES]
            ],
            "baselines": [
                {"name": name, "metrics": _means(values), "trained_on": 0}
                for name, values in ((SENTENCE, theirs), (FIRST, firsts))
            ],
        },
        intervals={"metrics": _intervals(ours), "baseline": _intervals(theirs)},
        slices=[
            {
                "by": part.by,
                "name": part.name,
                "n": len(part.rows),
                "metric": "f1",
                "value": float(ours[part.rows, 1].mean()),
                "baseline": float(theirs[part.rows, 1].mean()),
            }
            for part in run.slices_by_length([row["context"] for row in rows])
        ],
    )


def right_answers(row: dict[str, Any]) -> list[str]:
    """Return the right answers; one empty text if the row has no answer."""
    return [row["context"][each["start"] : each["end"]] for each in row["answers"]] or [""]


def by_row(rows: Sequence[dict[str, Any]], answers: Sequence[str]) -> np.ndarray:
    """Return [rows, 2]: exact match and F1 of each row, from 0 to 1."""
    values = []
    for row, answer in zip(rows, answers, strict=True):
        right = right_answers(row)
        measured = squad(
            [{"prediction_text": answer, "id": "0"}],
            [{"answers": {"answer_start": [0] * len(right), "text": right}, "id": "0"}],
        )
        values.append([float(measured[name]) / 100 for name in _METRICS])
    return np.array(values)


def _means(values: np.ndarray) -> dict[str, float]:
    return {name: float(values[:, at].mean()) for at, name in enumerate(_METRICS)}


def _intervals(values: np.ndarray) -> dict[str, dict[str, Any]]:
    return {
        name: run.bootstrap(
            float(values[:, at].mean()),
            lambda rows, at=at: float(values[rows, at].mean()),  # type: ignore[misc]
            len(values),
        )
        for at, name in enumerate(_METRICS)
    }


def _best_sentence(question: str, context: str) -> str:
    words = _words(question)
    return max(_sentences(context), key=lambda sentence: len(words & _words(sentence)))


def _sentences(text: str) -> list[str]:
    return [each for each in _SENTENCE_END.split(text.strip()) if each] or [text]


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
