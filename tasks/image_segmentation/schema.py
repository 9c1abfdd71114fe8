"""Types of image segmentation: dataset rows, inputs, options and results."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from assay.plugins import declare


class ImageWithMask(BaseModel):
    """One image, a mask of category numbers, and the categories' names."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: declare.ImageFile
    mask: declare.MaskFile
    categories: declare.Categories


class SegmentationOptions(declare.Options):
    """Segments that score less than `threshold` are left out."""

    threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0


class Segment(TypedDict):
    """The mask of one label: a PNG in base64, as large as the image, white on the label's pixels.

    `score` is the model's mean probability of the label on these pixels.
    """

    label: str
    score: float
    mask: str
