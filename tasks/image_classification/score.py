"""Score an image classifier on labeled images, against pixels and the best constant answer."""

from __future__ import annotations

from typing import Any

from PIL import Image

from tasks.image_classification.baselines import pixel_classifier
from workers.engines.images import FORMATS
from workers.trainers.classification import SAMPLES, score_classifier
from workers.trainers.classifier_training import distinct
from workers.trainers.evaluation import ScoreRequest
from workers.trainers.protocol import EvaluationResult
from workers.trainers.slices import thirds
from workers.trainers.thumbnails import thumbnail


def score(request: ScoreRequest) -> EvaluationResult:
    """Return accuracy, macro-F1 and F1 by label; accuracy by label and by image size too.

    With training rows, logistic regression on pixels is trained on them and is then the baseline
    that numbers are compared with.

    Raises:
        BadMaterial: a row's label is none that the version knows.
        Canceled: `request.progress` said so.
    """
    images = [row["image"] for row in request.rows]
    baselines = []
    if request.train_rows is not None:
        train_rows, _ = distinct(request.train_rows, "image")
        trained = pixel_classifier(train_rows, images, request.progress)
        baselines += [trained] if trained is not None else []
    return score_classifier(
        truth=[row["label"] for row in request.rows],
        outcomes=request.outcomes,
        shown=[{"input_image": thumbnail(path)} for path in images[:SAMPLES]],
        baselines=baselines,
        parts=thirds(
            [_pixel_count(path) for path in images],
            by="image size",
            names=("small", "medium", "large"),
            unit="pixels",
        ),
    )


def _pixel_count(path: Any) -> int:
    with Image.open(path, formats=list(FORMATS)) as image:
        return int(image.width * image.height)
