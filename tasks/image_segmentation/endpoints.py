"""POST /v1/tasks/image-segmentation/{model}, in Hugging Face's inference shape."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from assay.plugins import declare
from tasks.image_segmentation.schema import SegmentationOptions


class Parameters(declare.Strict):
    """Segments that score less than `threshold` are left out. Each pixel has one label, so the
    thresholds of masks and of overlaps do not apply."""

    threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    subtask: Literal["semantic"] | None = None
    mask_threshold: None = None
    overlap_mask_area_threshold: None = None


class ImageSegmentationRequest(declare.MediaRequest):
    """An image in base64."""

    parameters: Parameters | None = None


def _options(request: ImageSegmentationRequest | None) -> SegmentationOptions:
    threshold = request.parameters.threshold if request and request.parameters else None
    return SegmentationOptions(threshold=threshold or 0.0)


# A result is [{label, score, mask}, …], the largest first; `mask` is a PNG in base64.
ENDPOINT = declare.file_endpoint(
    "image-segmentation",
    "image",
    declare.OneImage,
    ImageSegmentationRequest,
    summary="Hugging Face's shape: send the image; the answer is `[{label, score, mask}]`.",
    options=_options,
)
