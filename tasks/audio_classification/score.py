"""Score an audio classifier on labeled recordings, with MFCC and the best constant answer."""

from __future__ import annotations

import soundfile

from assay.plugins import run
from tasks.audio_classification.baselines import cepstral_classifier


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return accuracy, macro-F1 and F1 by label, with accuracy slices by label and by duration.

    With training rows, the baseline is logistic regression on MFCC, trained on those rows.

    Raises:
        BadMaterial: a row has a label that the version does not know.
        Canceled: `request.progress` requests a stop.
    """
    recordings = [row["audio"] for row in request.rows]
    seconds = [soundfile.info(path).duration for path in recordings]
    baselines = []
    if request.train_rows is not None:
        train_rows, _ = run.distinct_rows(request.train_rows, "audio")
        trained = cepstral_classifier(train_rows, recordings, request.progress)
        baselines += [trained] if trained is not None else []
    return run.score_classifier(
        truth=[row["label"] for row in request.rows],
        outcomes=request.outcomes,
        samples=[
            {"input": f"Recording of {length:.1f} s", "input_audio": path.name}
            for path, length in zip(
                recordings[: run.MAX_SAMPLES], seconds[: run.MAX_SAMPLES], strict=True
            )
        ],
        baselines=baselines,
        slices=run.slices_by_size(
            [round(length * 1_000) for length in seconds],
            by="duration",
            names=("short", "medium", "long"),
            unit="ms",
        ),
    )
