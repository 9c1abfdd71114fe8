"""POST /v1/tasks/text-to-video/{model}, in Hugging Face's inference shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from assay.plugins import declare
from assay_tasks_extra.text_to_video.schema import (
    DEFAULT_FRAMES,
    DEFAULT_GUIDANCE,
    DEFAULT_SIDE,
    DEFAULT_STEPS,
    MAX_PIXELS,
    MAX_PROMPT,
    MAX_STEPS,
    Frames,
    Prompt,
    Seed,
    Side,
    VideoInputs,
    VideoOptions,
)


class Parameters(declare.Strict):
    """Settings of one video, under Hugging Face's names. `width` and `height` are extensions."""

    negative_prompt: Annotated[list[Prompt], Field(max_length=8)] | None = None
    num_frames: Annotated[Frames, Field(strict=False)] | None = None
    num_inference_steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    guidance_scale: Annotated[float, Field(ge=1, le=50, strict=False)] | None = None
    seed: Seed | None = None
    width: Side | None = None
    height: Side | None = None


class TextToVideoRequest(declare.Strict):
    """A prompt, and settings of the video."""

    inputs: Prompt
    parameters: Parameters | None = None


def read_text_to_video(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read the request. Raises RequestInvalid."""
    request = declare.parse(TextToVideoRequest, body.data)
    parameters = request.parameters or Parameters()
    negative = ", ".join(parameters.negative_prompt or [])
    if len(negative) > MAX_PROMPT:
        raise declare.RequestInvalid(
            f"negative_prompt has {len(negative):,} characters in all; at most {MAX_PROMPT:,} are "
            "read. Send fewer or shorter texts.",
            param="parameters.negative_prompt",
        )
    inputs = VideoInputs(
        prompt=request.inputs,
        negative_prompt=negative or None,
        width=parameters.width or DEFAULT_SIDE,
        height=parameters.height or DEFAULT_SIDE,
        frames=parameters.num_frames or DEFAULT_FRAMES,
        seed=parameters.seed,
    )
    pixels = inputs.width * inputs.height * inputs.frames
    if pixels > MAX_PIXELS:
        raise declare.RequestInvalid(
            f"The video has {pixels:,} pixels in all of its frames; at most {MAX_PIXELS:,} are "
            "allowed. Request fewer frames, or a smaller size.",
            param="parameters",
        )
    tokens = declare.estimate_tokens([request.inputs, negative])
    return declare.Plan(
        model=name,
        inputs=inputs,
        renderer=VideoRenderer(),
        tokens=tokens,
        prompt_tokens=tokens,
        units=math.ceil(pixels / 1_000_000),
        options=VideoOptions(
            steps=parameters.num_inference_steps or DEFAULT_STEPS,
            guidance=parameters.guidance_scale or DEFAULT_GUIDANCE,
        ),
    )


@dataclass(slots=True)
class VideoRenderer:
    """The video itself, an animated WebP, as the whole body."""

    def whole(self, answer: declare.Answer) -> declare.Rendered:
        result: declare.MediaResult = answer.results[0]
        return declare.Rendered(result.data, result.content_type)
