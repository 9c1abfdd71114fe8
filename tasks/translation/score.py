"""Score translations, against the text itself and the most similar training text."""

from __future__ import annotations

from assay.plugins import run

COPY = "copy of the text"


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return chrF and exact match, with intervals, and chrF by length of the text.

    Raises:
        Canceled: `request.progress` requests a stop.
    """
    simple = run.SimpleTexts(COPY, [row["source"] for row in request.rows])
    return run.score_texts(request, columns=("source", "target"), simple=simple)
