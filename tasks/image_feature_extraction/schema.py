"""Rows, inputs and results of image feature extraction."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from registry.catalog.columns import ImageFile
from registry.catalog.inputs import ImageInput, Inputs

MAX_IMAGES = 16


class LabeledImage(BaseModel):
    """One image and its label. Images of one label should lie close together."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: ImageFile
    label: str = Field(min_length=1, max_length=100)


class Images(Inputs):
    """Images to turn into vectors."""

    images: Annotated[list[ImageInput], Field(min_length=1, max_length=MAX_IMAGES)]
