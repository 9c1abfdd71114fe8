"""A simple image classifier that a trained one has to beat, measured on the same rows.

Logistic regression (scikit-learn) on the pixels of the scaled-down image, trained on the rows that
the version was trained on.
"""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from assay.plugins import run

PIXELS = "Pixels + logistic regression"
SIDE = 16
# Fitting cannot be interrupted; within these limits it took 6 s of one core.
MAX_ROWS = 6_000
MAX_LABELS = 50
MAX_ITERATIONS = 100
INVERSE_REGULARIZATION = 0.1
_SEED = 17


def pixel_classifier(
    rows: Sequence[dict[str, Any]], images: Sequence[Path], progress: run.Progress
) -> run.Baseline | None:
    """Train on the pixels of `rows` {"image", "label"} and label `images`.

    Returns None, with the reason in the progress log, when the data does not fit the limits.

    Raises:
        Canceled: `progress` requests a stop.
    """
    sample = list(rows)
    if len(sample) > MAX_ROWS:
        sample = random.Random(_SEED).sample(sample, MAX_ROWS)
    labels = {row["label"] for row in sample}
    if not 2 <= len(labels) <= MAX_LABELS:
        progress.log(
            f"{PIXELS} was not trained: the training data has {len(labels)} labels; "
            f"this baseline takes 2 to {MAX_LABELS}."
        )
        return None
    started = time.monotonic()
    model = LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=MAX_ITERATIONS)
    try:
        train_features = _features([row["image"] for row in sample], progress)
        test_features = _features(images, progress)
    except run.UnreadableImage as error:
        progress.log(f"{PIXELS} was not trained: {error}")
        return None
    with warnings.catch_warnings():
        # The fit stops after MAX_ITERATIONS, before it converges to the last digits.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train_features, [row["label"] for row in sample])
    guesses = model.predict(test_features).tolist()
    progress.log(
        f"{PIXELS}: trained on {len(sample):,} images and labeled {len(images):,} "
        f"in {time.monotonic() - started:.1f} s."
    )
    return run.Baseline(PIXELS, guesses, len(sample))


def _features(images: Sequence[Path], progress: run.Progress) -> np.ndarray:
    """Return [images, values] of the images scaled to 16 × 16 pixels."""
    features = np.empty((len(images), SIDE * SIDE * 3), dtype=np.float32)
    for number, path in enumerate(images):
        if number % 256 == 0 and progress.should_stop():
            raise run.Canceled
        small = run.read_image(path).resize((SIDE, SIDE), Image.Resampling.BOX)
        features[number] = np.asarray(small, dtype=np.float32).reshape(-1) / 255
    return features
