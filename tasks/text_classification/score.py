"""Score a text classifier on labeled rows, against TF-IDF and the best constant answer."""

from __future__ import annotations

from tasks.text_classification.baselines import linear
from workers.trainers.classification import Baseline, score_classifier
from workers.trainers.classifier_training import distinct
from workers.trainers.evaluation import ScoreRequest
from workers.trainers.protocol import EvaluationResult
from workers.trainers.slices import by_length

SAMPLE_CHARACTERS = 300


def score(request: ScoreRequest) -> EvaluationResult:
    """Return accuracy, macro-F1 and F1 by label; accuracy by label and by length of the text too.

    With training rows, TF-IDF with logistic regression is trained on them and is then the baseline
    that numbers are compared with.

    Raises:
        BadMaterial: a row's label is none that the version knows.
        Canceled: `request.progress` said so.
    """
    texts = [row["text"] for row in request.rows]
    baselines: list[Baseline] = []
    if request.train_rows is not None:
        train_rows, _ = distinct(request.train_rows, "text")
        trained = linear(train_rows, texts, request.progress)
        baselines += [trained] if trained is not None else []
    return score_classifier(
        truth=[row["label"] for row in request.rows],
        outcomes=request.outcomes,
        shown=[{"input": text[:SAMPLE_CHARACTERS]} for text in texts],
        baselines=baselines,
        parts=by_length(texts),
    )
