"""Score answers to questions about images, against the best answers without the image."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from assay.plugins import run

SAMPLES = 8
SHOWN_CHARACTERS = 300
BLIND = "the most frequent answer to the question, without the image"


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return the share of right answers: equal words, regardless of case, articles and punctuation,
    as in VQA (Antol et al. 2015, arXiv:1505.00468).

    The baseline ignores the image: it returns the training rows' most frequent answer to the same
    question, or to all questions. A model that beats it uses the image.
    """
    answers = [row["answer"] for row in request.rows]
    questions = [row["question"] for row in request.rows]
    texts = [outcome.text for outcome in request.outcomes]
    blind = _without_image(request.train_rows or [], questions, answers)
    right, rival = _is_right(texts, answers), _is_right(blind, answers)
    return run.EvaluationResult(
        metrics={"accuracy": float(right.mean())},
        baseline={"accuracy": float(rival.mean())},
        baseline_name=BLIND,
        sample_size=len(answers),
        details={
            "samples": [
                {
                    "input": row["question"][:SHOWN_CHARACTERS],
                    "input_image": run.thumbnail(row["image"]),
                    "expected": row["answer"][:SHOWN_CHARACTERS],
                    "output": text[:SHOWN_CHARACTERS],
                    "baseline": guess[:SHOWN_CHARACTERS],
                }
                for row, text, guess in list(zip(request.rows, texts, blind, strict=True))[:SAMPLES]
            ],
            "right": {"n": len(answers), "bits": np.packbits(right).tobytes().hex()},
        },
        slices=[
            {
                "by": "question",
                "name": part.name[:100],
                "n": len(part.rows),
                "metric": "accuracy",
                "value": float(right[part.rows].mean()),
                "baseline": float(rival[part.rows].mean()),
            }
            for part in run.slices_by_label([_opening(question) for question in questions])
        ],
    )


def plain(text: str) -> str:
    """Return an answer without case, punctuation and articles."""
    words = re.findall(r"[\w'-]+", text.lower())
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def _is_right(texts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
    return np.array(
        [plain(each) == plain(answer) for each, answer in zip(texts, answers, strict=True)]
    )


def _without_image(
    train_rows: Sequence[dict[str, Any]], questions: Sequence[str], answers: Sequence[str]
) -> list[str]:
    """Return the most frequent answer to each question. Without training rows, count the test rows'
    own answers, which flatters the baseline."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    anything: Counter[str] = Counter()
    pairs = [(row["question"], row["answer"]) for row in train_rows]
    for question, answer in pairs or zip(questions, answers, strict=True):
        counts[plain(question)][answer] += 1
        anything[answer] += 1
    return [(counts.get(plain(each)) or anything).most_common(1)[0][0] for each in questions]


def _opening(question: str) -> str:
    """Return the first two words of a question, which VQA uses as its type."""
    return " ".join(question.lower().split()[:2]).rstrip("?")
