"""Types of object detection: dataset rows, inputs, options and results."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from assay.plugins import declare


class ImageWithBoxes(BaseModel):
    """One image, and a box with a label for each object on it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: declare.ImageFile
    objects: declare.Boxes


class DetectionOptions(declare.Options):
    """Objects that score less than `threshold` are left out."""

    threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0


class Box(TypedDict):
    """Corners in pixels, from the top left corner of the upright image."""

    xmin: float
    ymin: float
    xmax: float
    ymax: float


class Detection(TypedDict):
    """One detected object."""

    label: str
    score: float
    box: Box
