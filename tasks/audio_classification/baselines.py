"""A simple audio classifier that a trained one has to beat, measured on the same rows.

Logistic regression (scikit-learn) on the mean and spread of 13 cepstral coefficients (MFCC),
trained on the rows that the version was trained on.
"""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.fft import dct
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from assay.plugins import run

NAME = "MFCC + logistic regression"
RATE = 16_000
FRAME, HOP, BANDS, COEFFICIENTS = 400, 160, 40, 13
# Only this much of a recording's beginning is read.
SECONDS = 10
MAX_ROWS = 3_000
MAX_LABELS = 50
MAX_ITERATIONS = 200
_SEED = 17


def cepstral_classifier(
    rows: Sequence[dict[str, Any]], recordings: Sequence[Path], progress: run.Progress
) -> run.Baseline | None:
    """Train on the recordings of `rows` {"audio", "label"} and label `recordings`.

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
            f"{NAME} was not trained: the training data has {len(labels)} labels; "
            f"this baseline takes 2 to {MAX_LABELS}."
        )
        return None
    started = time.monotonic()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS))
    try:
        train_features = _features([row["audio"] for row in sample], progress)
        test_features = _features(recordings, progress)
    except run.UnreadableAudio as error:
        progress.log(f"{NAME} was not trained: {error}")
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train_features, [row["label"] for row in sample])
    guesses = model.predict(test_features).tolist()
    progress.log(
        f"{NAME}: trained on {len(sample):,} recordings and labeled {len(recordings):,} "
        f"in {time.monotonic() - started:.1f} s."
    )
    return run.Baseline(NAME, guesses, len(sample))


def _features(recordings: Sequence[Path], progress: run.Progress) -> np.ndarray:
    """Return [recordings, 26]."""
    filters = mel_filter_bank(FRAME // 2 + 1, BANDS, 20, RATE / 2, RATE)
    window = window_function(FRAME, "hann")
    features = np.empty((len(recordings), 2 * COEFFICIENTS), dtype=np.float32)
    for number, path in enumerate(recordings):
        if number % 32 == 0 and progress.should_stop():
            raise run.Canceled
        samples = run.read_audio(path, RATE)[: SECONDS * RATE]
        if len(samples) < FRAME:
            samples = np.pad(samples, (0, FRAME - len(samples)))
        bands = spectrogram(
            samples, window, FRAME, HOP, power=2.0, mel_filters=filters, log_mel="log"
        )
        cepstrum = dct(bands, axis=0, norm="ortho")[:COEFFICIENTS]
        features[number] = np.concatenate([cepstrum.mean(axis=1), cepstrum.std(axis=1)])
    return features
