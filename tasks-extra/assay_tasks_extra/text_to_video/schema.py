"""Types of text to video: dataset rows, inputs and options. A result is a video."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare

MAX_SIDE = 1_280
MAX_FRAMES = 121
# Maximum pixels in all frames of a request.
MAX_PIXELS = 50_000_000
MAX_STEPS = 100
# Maximum characters of a prompt, and of all texts of a negative prompt together.
MAX_PROMPT = 4_000
MAX_SEED = 2**32 - 1
DEFAULT_SIDE = 256
DEFAULT_FRAMES = 17
DEFAULT_STEPS = 20
DEFAULT_GUIDANCE = 5.0

Prompt = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Side = Annotated[int, Field(ge=16, le=MAX_SIDE)]
Frames = Annotated[int, Field(ge=1, le=MAX_FRAMES)]


class CaptionedVideo(BaseModel):
    """A video and its caption."""

    model_config = ConfigDict(extra="forbid", strict=True)

    video: declare.VideoFile
    text: str = Field(min_length=1, max_length=2_000)


class VideoInputs(declare.Inputs):
    """A prompt, and the size (in pixels) and number of frames of the video.

    The default seed is random.
    """

    prompt: Prompt
    negative_prompt: Prompt | None = None
    width: Side = DEFAULT_SIDE
    height: Side = DEFAULT_SIDE
    frames: Frames = DEFAULT_FRAMES
    seed: Seed | None = None


class VideoOptions(declare.TextOptions):
    """Settings of the denoising: number of steps, and weight of classifier-free guidance."""

    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = DEFAULT_STEPS
    guidance: Annotated[float, Field(ge=1, le=50, allow_inf_nan=False)] = DEFAULT_GUIDANCE
