"""Score a version on labeled rows, beside the best constant answer."""

from __future__ import annotations

from assay.plugins import run

SHOWN_CHARACTERS = 300


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return accuracy, macro-F1 and F1 by language; accuracy by length of the text too.

    Raises:
        BadMaterial: a row's language is none that the version knows.
    """
    texts = [row["text"] for row in request.rows]
    return run.score_classifier(
        truth=[row["label"] for row in request.rows],
        outcomes=request.outcomes,
        shown=[{"input": text[:SHOWN_CHARACTERS]} for text in texts],
        parts=run.slices_by_length(texts),
    )
