"""Score zero-shot classification against the label that shares most words with the text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from assay.plugins import run

WORDS = "most words in common"
SAMPLE_CHARACTERS = 300


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return accuracy, macro-F1 and F1 by label, with accuracy slices by text length.

    Raises:
        BadMaterial: the rows have different labels to choose from, so their scores are not
        comparable.
    """
    rows = request.rows
    if len({tuple(sorted(row["candidate_labels"])) for row in rows}) > 1:
        raise run.BadMaterial("Every row must offer the same candidate_labels.")
    texts = [row["text"] for row in rows]
    overlap = run.Baseline(WORDS, [_by_words(row) for row in rows], 0)
    return run.score_classifier(
        truth=[row["label"] for row in rows],
        outcomes=request.outcomes,
        samples=[{"input": text[:SAMPLE_CHARACTERS]} for text in texts],
        baselines=[overlap],
        slices=run.slices_by_length(texts),
    )


def _by_words(row: dict[str, Any]) -> str:
    """Return the label that shares most words with the text; the first one if several tie."""
    labels: Sequence[str] = row["candidate_labels"]
    words = _words(row["text"])
    return max(labels, key=lambda label: len(words & _words(label)))


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
