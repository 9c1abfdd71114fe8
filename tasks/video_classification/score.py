"""Score a video classifier on labeled videos, against simple ones and the best constant answer.

The simple classifiers are logistic regressions (scikit-learn) on small gray frames: one on the
whole video, and one on its middle frame, without motion.
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

ALL_FRAMES = "8 frames + logistic regression"
ONE_FRAME = "Middle frame + logistic regression"
FRAMES, SIDE = 8, 12
# Fitting cannot be interrupted; within these limits it took some seconds of one core.
MAX_ROWS = 4_000
MAX_ITERATIONS = 100
_SEED = 17


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return accuracy, macro-F1 and F1 by label.

    With training rows, the baseline is logistic regression on all frames, trained on those rows.

    Raises:
        BadMaterial: a row has a label that the version does not know.
        Canceled: `request.progress` requests a stop.
    """
    videos = [row["video"] for row in request.rows]
    baselines: list[run.Baseline] = []
    if request.train_rows is not None:
        train_rows, _ = run.distinct_rows(request.train_rows, "video")
        baselines = _simple_classifiers(train_rows, videos, request.progress)
    return run.score_classifier(
        truth=[row["label"] for row in request.rows],
        outcomes=request.outcomes,
        samples=[
            {"input_image": run.thumbnail(_middle(path))} for path in videos[: run.MAX_SAMPLES]
        ],
        baselines=baselines,
    )


def _middle(path: Path) -> Image.Image:
    return run.read_clip(path, 3).frames[1]


def _simple_classifiers(
    rows: Sequence[dict[str, Any]], videos: Sequence[Path], progress: run.Progress
) -> list[run.Baseline]:
    """Train on `rows` {"video", "label"} and label `videos`; return an empty list and log the
    reason if that is not possible."""
    sample = list(rows)
    if len(sample) > MAX_ROWS:
        sample = random.Random(_SEED).sample(sample, MAX_ROWS)
    if len({row["label"] for row in sample}) < 2:
        progress.log(f"{ALL_FRAMES} was not trained: the training data has one label.")
        return []
    started = time.monotonic()
    try:
        train_features = _features([row["video"] for row in sample], progress)
        test_features = _features(videos, progress)
    except run.UnreadableVideo as error:
        progress.log(f"{ALL_FRAMES} was not trained: {error}")
        return []
    labels = [row["label"] for row in sample]
    middle = slice(FRAMES // 2 * SIDE * SIDE, (FRAMES // 2 + 1) * SIDE * SIDE)
    fitted = []
    for name, part in ((ALL_FRAMES, slice(None)), (ONE_FRAME, middle)):
        if progress.should_stop():
            raise run.Canceled
        model = LogisticRegression(C=0.1, max_iter=MAX_ITERATIONS)
        with warnings.catch_warnings():
            # The fit stops after MAX_ITERATIONS, before it converges to the last digits.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(train_features[:, part], labels)
        fitted.append(
            run.Baseline(name, model.predict(test_features[:, part]).tolist(), len(sample))
        )
    progress.log(
        f"{ALL_FRAMES}: trained on {len(sample):,} videos and labeled {len(videos):,} "
        f"in {time.monotonic() - started:.1f} s."
    )
    return fitted


def _features(videos: Sequence[Path], progress: run.Progress) -> np.ndarray:
    """Return [videos, values] of eight gray frames of 12 × 12 pixels each."""
    features = np.empty((len(videos), FRAMES * SIDE * SIDE), dtype=np.float32)
    for number, path in enumerate(videos):
        if number % 64 == 0 and progress.should_stop():
            raise run.Canceled
        frames = [
            np.asarray(frame.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))
            for frame in run.read_clip(path, FRAMES).frames
        ]
        features[number] = np.concatenate([frame.reshape(-1) for frame in frames]) / 255
    return features
