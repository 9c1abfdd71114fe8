"""Types of text to image: dataset rows, inputs and options."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare

MAX_IMAGES = 10
MAX_SIDE = 2_048
MAX_STEPS = 150
MAX_SEED = 2**32 - 1
DEFAULT_STEPS = 20
DEFAULT_GUIDANCE = 4.0

Prompt = Annotated[str, Field(min_length=1, max_length=4_000)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Side = Annotated[int, Field(ge=8, le=MAX_SIDE)]


class CaptionedImage(BaseModel):
    """An image and its caption."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: declare.ImageFile
    text: str = Field(min_length=1, max_length=2_000)


class DrawingInputs(declare.Inputs):
    """A prompt, and the number and size (in pixels) of the images to draw.

    Image i has the seed `seed` + i; the default seed is random. The default size is the one that
    the model was trained on.
    """

    prompt: Prompt
    negative_prompt: Prompt | None = None
    n: Annotated[int, Field(ge=1, le=MAX_IMAGES)] = 1
    width: Side | None = None
    height: Side | None = None
    seed: Seed | None = None


class DrawingOptions(declare.TextOptions):
    """Settings of the denoising: number of steps, and weight of classifier-free guidance."""

    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = DEFAULT_STEPS
    guidance: Annotated[float, Field(ge=1, le=50, allow_inf_nan=False)] = DEFAULT_GUIDANCE
