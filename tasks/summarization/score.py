"""Score summaries, against the beginning of the text and the most similar training text."""

from __future__ import annotations

import re

from assay.plugins import run

LEAD = "first sentence of the text"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return chrF and exact match, with intervals, and chrF by length of the text.

    Raises:
        Canceled: `request.progress` requests a stop.
    """
    leads = [_SENTENCE_END.split(row["text"].strip())[0] for row in request.rows]
    simple = run.SimpleTexts(LEAD, leads)
    return run.score_texts(request, columns=("text", "summary"), simple=simple)
