"""POST /v1/tasks/object-detection/{model}, in Hugging Face's inference shape."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from assay.plugins import declare
from tasks.object_detection.schema import DetectionOptions

DEFAULT_THRESHOLD = 0.5


class Parameters(declare.Strict):
    """Objects that score less than `threshold` are left out."""

    threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None


class ObjectDetectionRequest(declare.MediaRequest):
    """An image in base64."""

    parameters: Parameters | None = None


def _options(request: ObjectDetectionRequest | None) -> DetectionOptions:
    threshold = request.parameters.threshold if request and request.parameters else None
    return DetectionOptions(threshold=DEFAULT_THRESHOLD if threshold is None else threshold)


def _boxes(result: Any) -> list[Any]:
    """Return [{label, score, box: {xmin, ymin, xmax, ymax}}, …], best first, in whole pixels."""
    return [
        {**each, "box": {side: round(value) for side, value in each["box"].items()}}
        for each in result
    ]


ENDPOINT = declare.file_endpoint(
    "object-detection",
    "image",
    declare.OneImage,
    ObjectDetectionRequest,
    summary="Hugging Face's shape: send the image; the answer is `[{label, score, box}]`.",
    options=_options,
    result=_boxes,
)
