"""A simple text classifier that a fine-tuned one has to beat, measured on the same rows.

It is the usual first model for text: word and bigram TF-IDF with logistic
regression (scikit-learn), trained on the rows that the version was trained on. It takes seconds; an
encoder that does not beat it is not worth its cost.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from assay.plugins import run

LINEAR = "TF-IDF + logistic regression"
# Fitting cannot be interrupted; within these limits it took 10 s of one core (random labels). Text
# of random words costs most: 4 million characters of it took 34 s and 0.5 GiB.
MAX_ROWS = 20_000
MAX_TOTAL_CHARACTERS = 8_000_000
MAX_LABELS = 20
MAX_CHARACTERS = 1_000
MAX_FEATURES = 50_000
MAX_ITERATIONS = 200
# Weaker regularization than the default of 1, which suits short texts (chosen on validation rows).
INVERSE_REGULARIZATION = 4.0
_CHUNK = 4_096
_SEED = 17


def linear(
    rows: Sequence[dict[str, Any]], texts: Sequence[str], progress: run.Progress
) -> run.Baseline | None:
    """Train TF-IDF with logistic regression on `rows` and label `texts`.

    Returns None, with the reason in the progress log, when the data does not fit the limits.

    Args:
        rows: Training rows {"text", "label"}; a fixed sample is used if they exceed the limits.
        texts: The test texts.
        progress: Receives the log, and may request a stop before and after fitting.

    Raises:
        Canceled: `progress` requests a stop.
    """
    labels = {row["label"] for row in rows}
    if not 2 <= len(labels) <= MAX_LABELS:
        progress.log(
            f"{LINEAR} was not trained: the training data has {len(labels)} labels; "
            f"this baseline takes 2 to {MAX_LABELS}."
        )
        return None
    sample = _sampled(rows)
    if progress.should_stop():
        raise run.Canceled
    started = time.monotonic()
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=MAX_FEATURES),
        LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=MAX_ITERATIONS),
    )
    try:
        model.fit(
            [row["text"][:MAX_CHARACTERS] for row in sample], [row["label"] for row in sample]
        )
    except ValueError as error:
        # Raised if no text has a word, and if the sample has only one label.
        progress.log(f"{LINEAR} was not trained: {error}")
        return None
    guesses: list[str] = []
    for start in range(0, len(texts), _CHUNK):
        if progress.should_stop():
            raise run.Canceled
        chunk = [text[:MAX_CHARACTERS] for text in texts[start : start + _CHUNK]]
        guesses += model.predict(chunk).tolist()
    progress.log(
        f"{LINEAR}: trained on {len(sample):,} rows and predicted {len(texts):,} labels "
        f"in {time.monotonic() - started:.1f} s."
    )
    return run.Baseline(LINEAR, guesses, len(sample))


def _sampled(rows: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Return the rows, or as many as fit the limits on rows and characters."""
    characters = sum(len(row["text"][:MAX_CHARACTERS]) for row in rows)
    fitting = min(MAX_ROWS, len(rows) * MAX_TOTAL_CHARACTERS // max(1, characters))
    return random.Random(_SEED).sample(rows, fitting) if fitting < len(rows) else rows
