"""Score an audio classifier on labeled recordings, with MFCC and the best constant answer."""

from __future__ import annotations

import soundfile

from tasks.audio_classification.baselines import cepstral_classifier
from workers.trainers.classification import SAMPLES, score_classifier
from workers.trainers.classifier_training import distinct
from workers.trainers.evaluation import ScoreRequest
from workers.trainers.protocol import EvaluationResult
from workers.trainers.slices import thirds


def score(request: ScoreRequest) -> EvaluationResult:
    """Return accuracy, macro-F1 and F1 by label; accuracy by label and by duration too.

    With training rows, logistic regression on MFCC is trained on them and is then the baseline
    that numbers are compared with.

    Raises:
        BadMaterial: a row's label is none that the version knows.
        Canceled: `request.progress` said so.
    """
    recordings = [row["audio"] for row in request.rows]
    seconds = [soundfile.info(path).duration for path in recordings]
    baselines = []
    if request.train_rows is not None:
        train_rows, _ = distinct(request.train_rows, "audio")
        trained = cepstral_classifier(train_rows, recordings, request.progress)
        baselines += [trained] if trained is not None else []
    return score_classifier(
        truth=[row["label"] for row in request.rows],
        outcomes=request.outcomes,
        shown=[
            {"input": f"Recording of {length:.1f} s", "input_audio": path.name}
            for path, length in zip(recordings[:SAMPLES], seconds[:SAMPLES], strict=True)
        ],
        baselines=baselines,
        parts=thirds(
            [round(length * 1_000) for length in seconds],
            by="duration",
            names=("short", "medium", "long"),
            unit="ms",
        ),
    )
