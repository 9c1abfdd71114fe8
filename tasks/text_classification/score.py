"""Score a text classifier on labeled rows, against TF-IDF and the best constant answer."""

from __future__ import annotations

from assay.plugins import run
from tasks.text_classification.baselines import linear

SAMPLE_CHARACTERS = 300


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return accuracy, macro-F1 and F1 by label, with accuracy slices by label and by text length.

    With training rows, the baseline is TF-IDF with logistic regression, trained on those rows.

    Raises:
        BadMaterial: a row has a label that the version does not know.
        Canceled: `request.progress` requests a stop.
    """
    texts = [row["text"] for row in request.rows]
    baselines: list[run.Baseline] = []
    if request.train_rows is not None:
        train_rows, _ = run.distinct_rows(request.train_rows, "text")
        trained = linear(train_rows, texts, request.progress)
        baselines += [trained] if trained is not None else []
    return run.score_classifier(
        truth=[row["label"] for row in request.rows],
        outcomes=request.outcomes,
        samples=[{"input": text[:SAMPLE_CHARACTERS]} for text in texts],
        baselines=baselines,
        slices=run.slices_by_length(texts),
    )
