"""Score a version on labeled rows, against the best constant answer."""

from __future__ import annotations

from assay.plugins import run

SHOWN_CHARACTERS = 300


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return accuracy, macro-F1 and F1 by language, with accuracy slices by text length.

    Raises:
        BadMaterial: a row has a language that the version does not know.
    """
    texts = [row["text"] for row in request.rows]
    return run.score_classifier(
        truth=[row["label"] for row in request.rows],
        outcomes=request.outcomes,
        samples=[{"input": text[:SHOWN_CHARACTERS]} for text in texts],
        slices=run.slices_by_length(texts),
    )
