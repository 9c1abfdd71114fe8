"""Rows, inputs and results of image feature extraction."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare

MAX_IMAGES = 16


class LabeledImage(BaseModel):
    """One image and its label. Images of one label should lie close together."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: declare.ImageFile
    label: str = Field(min_length=1, max_length=100)


class Images(declare.Inputs):
    """Images to turn into vectors."""

    images: Annotated[list[declare.ImageInput], Field(min_length=1, max_length=MAX_IMAGES)]
