"""Score an image classifier on labeled images, against pixels and the best constant answer."""

from __future__ import annotations

from typing import Any

from PIL import Image

from assay.plugins import run
from tasks.image_classification.baselines import pixel_classifier


def score(request: run.ScoreRequest) -> run.EvaluationResult:
    """Return accuracy, macro-F1 and F1 by label, with accuracy slices by label and by image size.

    With training rows, the baseline is logistic regression on pixels, trained on those rows.

    Raises:
        BadMaterial: a row has a label that the version does not know.
        Canceled: `request.progress` requests a stop.
    """
    images = [row["image"] for row in request.rows]
    baselines = []
    if request.train_rows is not None:
        train_rows, _ = run.distinct_rows(request.train_rows, "image")
        trained = pixel_classifier(train_rows, images, request.progress)
        baselines += [trained] if trained is not None else []
    return run.score_classifier(
        truth=[row["label"] for row in request.rows],
        outcomes=request.outcomes,
        samples=[{"input_image": run.thumbnail(path)} for path in images[: run.MAX_SAMPLES]],
        baselines=baselines,
        slices=run.slices_by_size(
            [_pixel_count(path) for path in images],
            by="image size",
            names=("small", "medium", "large"),
            unit="pixels",
        ),
    )


def _pixel_count(path: Any) -> int:
    with Image.open(path, formats=list(run.IMAGE_FORMATS)) as image:
        return int(image.width * image.height)
