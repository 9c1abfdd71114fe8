"""POST /v1/tasks/image-segmentation/{model}, in Hugging Face's inference shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from assay.plugins import declare
from tasks.image_segmentation.schema import OneImage, SegmentationOptions


class Parameters(declare.Strict):
    """Segments with a lower score than `threshold` are left out. Each pixel has one label, so
    thresholds of single masks and of overlaps have no meaning here."""

    threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    subtask: Literal["semantic"] | None = None
    mask_threshold: None = None
    overlap_mask_area_threshold: None = None


class ImageSegmentationRequest(declare.MediaRequest):
    """An image in base64."""

    parameters: Parameters | None = None


def read_image_segmentation(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read an image, raw or as JSON. Raises RequestInvalid."""
    image, request = declare.read_file(body, "image", ImageSegmentationRequest)
    given = request.parameters.threshold if request and request.parameters else None
    return declare.Plan(
        model=name,
        inputs=OneImage(image=image),
        renderer=SegmentsRenderer(),
        tokens=0,
        prompt_tokens=0,
        units=1,
        options=SegmentationOptions(threshold=given or 0.0),
    )


@dataclass(slots=True)
class SegmentsRenderer:
    """[{label, score, mask}, …], the largest first; `mask` is a PNG in base64."""

    def whole(self, answer: declare.Answer) -> list[Any]:
        return list(answer.results[0])
