"""POST /v1/tasks/object-detection/{model}, in Hugging Face's inference shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from assay.plugins import declare
from tasks.object_detection.schema import DetectionOptions, OneImage

DEFAULT_THRESHOLD = 0.5


class Parameters(declare.Strict):
    """Objects with a lower score than `threshold` are left out."""

    threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None


class ObjectDetectionRequest(declare.MediaRequest):
    """An image in base64."""

    parameters: Parameters | None = None


def read_object_detection(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read an image, raw or as JSON. Raises RequestInvalid."""
    image, request = declare.read_file(body, "image", ObjectDetectionRequest)
    given = request.parameters.threshold if request and request.parameters else None
    return declare.Plan(
        model=name,
        inputs=OneImage(image=image),
        renderer=BoxesRenderer(),
        tokens=0,
        prompt_tokens=0,
        units=1,
        options=DetectionOptions(threshold=DEFAULT_THRESHOLD if given is None else given),
    )


@dataclass(slots=True)
class BoxesRenderer:
    """[{label, score, box: {xmin, ymin, xmax, ymax}}, …], best first, in whole pixels."""

    def whole(self, answer: declare.Answer) -> list[Any]:
        return [
            {**found, "box": {side: round(value) for side, value in found["box"].items()}}
            for found in answer.results[0]
        ]
