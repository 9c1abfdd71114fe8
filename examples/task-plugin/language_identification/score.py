"""Score a version on labeled rows, beside the best constant answer."""

from __future__ import annotations

from workers.trainers.classification import score_classifier
from workers.trainers.evaluation import ScoreRequest
from workers.trainers.protocol import EvaluationResult
from workers.trainers.slices import by_length

SHOWN_CHARACTERS = 300


def score(request: ScoreRequest) -> EvaluationResult:
    """Return accuracy, macro-F1 and F1 by language; accuracy by length of the text too.

    Raises:
        BadMaterial: a row's language is none that the version knows.
    """
    texts = [row["text"] for row in request.rows]
    return score_classifier(
        truth=[row["label"] for row in request.rows],
        outcomes=request.outcomes,
        shown=[{"input": text[:SHOWN_CHARACTERS]} for text in texts],
        parts=by_length(texts),
    )
