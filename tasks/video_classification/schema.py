"""Types of video classification: dataset rows, inputs and options. A result is a list of labels."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare


class LabeledVideo(BaseModel):
    """One video and its label."""

    model_config = ConfigDict(extra="forbid", strict=True)

    video: declare.VideoFile
    label: str = Field(min_length=1, max_length=100)


class OneVideo(declare.Inputs):
    """One video."""

    video: declare.VideoInput


class LabelOptions(declare.Options):
    """`top_k` is how many labels to return; all of them when it is None."""

    top_k: Annotated[int, Field(ge=1, le=1_000)] | None = None
