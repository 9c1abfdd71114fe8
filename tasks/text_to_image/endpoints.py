"""POST /v1/images/generations in OpenAI's shape, and Hugging Face's text-to-image shape."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from assay.plugins import declare
from tasks.text_to_image.schema import (
    DEFAULT_GUIDANCE,
    DEFAULT_STEPS,
    MAX_IMAGES,
    MAX_SIDE,
    MAX_STEPS,
    DrawingInputs,
    DrawingOptions,
    Prompt,
    Seed,
    Side,
)


class ImagesRequest(declare.Strict):
    """POST /v1/images/generations. Assay adds `seed`: equal seeds draw equal images."""

    model: declare.Name
    prompt: Prompt
    n: Annotated[int, Field(ge=1, le=MAX_IMAGES)] | None = None
    size: Annotated[str, Field(pattern=r"^(auto|[1-9]\d{0,3}x[1-9]\d{0,3})$")] | None = None
    response_format: str | None = None
    output_format: Literal["png"] | None = None
    quality: Literal["auto"] | None = None
    stream: Literal[False] | None = None
    seed: Seed | None = None
    user: declare.User | None = None
    background: None = None
    moderation: None = None
    output_compression: None = None
    partial_images: None = None
    style: None = None


class DiffusionParameters(declare.Strict):
    """Settings of one image, under Hugging Face's names."""

    negative_prompt: Prompt | None = None
    height: Side | None = None
    width: Side | None = None
    num_inference_steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    guidance_scale: Annotated[float, Field(ge=1, le=50, strict=False)] | None = None
    seed: Seed | None = None
    scheduler: None = None


class TextToImageRequest(declare.Strict):
    """POST /v1/tasks/text-to-image/{model}, as `huggingface_hub.InferenceClient` sends it."""

    inputs: Prompt
    parameters: DiffusionParameters | None = None


def read_images(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read POST /v1/images/generations. Raises RequestInvalid."""
    request = declare.parse(ImagesRequest, body.data)
    if request.response_format not in (None, "b64_json"):
        raise declare.RequestInvalid(
            "Images are returned in the response, never stored under a URL; "
            'set response_format to "b64_json".',
            param="response_format",
            code="unsupported_value",
        )
    width, height = _size(request.size)
    tokens = declare.estimate_tokens([request.prompt])
    return declare.Plan(
        model=request.model,
        user=request.user or "",
        inputs=DrawingInputs(
            prompt=request.prompt,
            n=request.n or 1,
            width=width,
            height=height,
            seed=request.seed,
        ),
        renderer=ImagesRenderer(created=int(time.time())),
        tokens=tokens,
        prompt_tokens=tokens,
        units=request.n or 1,
    )


def read_text_to_image(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read POST /v1/tasks/text-to-image/{model}. Raises RequestInvalid."""
    request = declare.parse(TextToImageRequest, body.data)
    settings = request.parameters or DiffusionParameters()
    if (settings.width is None) != (settings.height is None):
        raise declare.RequestInvalid("Set both width and height.", param="parameters")
    tokens = declare.estimate_tokens([request.inputs, settings.negative_prompt or ""])
    return declare.Plan(
        model=name,
        inputs=DrawingInputs(
            prompt=request.inputs,
            negative_prompt=settings.negative_prompt,
            width=settings.width,
            height=settings.height,
            seed=settings.seed,
        ),
        renderer=ImageRenderer(),
        tokens=tokens,
        prompt_tokens=tokens,
        units=1,
        options=DrawingOptions(
            steps=settings.num_inference_steps or DEFAULT_STEPS,
            guidance=DEFAULT_GUIDANCE
            if settings.guidance_scale is None
            else settings.guidance_scale,
        ),
    )


def _size(size: str | None) -> tuple[int | None, int | None]:
    if size is None or size == "auto":
        return None, None
    width, height = map(int, size.split("x"))
    if max(width, height) > MAX_SIDE:
        raise declare.RequestInvalid(
            f"size is {size}; a side has at most {MAX_SIDE} pixels.", param="size"
        )
    return width, height


@dataclass(slots=True)
class ImagesRenderer:
    """Images in base64, each with its seed, if the model states one."""

    created: int

    def whole(self, answer: declare.Answer) -> dict[str, Any]:
        images = _images(answer)
        return {
            "created": self.created,
            "data": [
                {
                    "b64_json": base64.b64encode(image.data).decode("ascii"),
                    **({"seed": image.details["seed"]} if "seed" in image.details else {}),
                }
                for image in images
            ],
            "output_format": images[0].content_type.removeprefix("image/"),
            "usage": {
                "input_tokens": answer.prompt_tokens,
                "input_tokens_details": {"text_tokens": answer.prompt_tokens, "image_tokens": 0},
                "output_tokens": 0,
                "total_tokens": answer.prompt_tokens,
            },
        }


@dataclass(slots=True)
class ImageRenderer:
    """The bytes of one image."""

    def whole(self, answer: declare.Answer) -> declare.Rendered:
        image = _images(answer)[0]
        return declare.Rendered(image.data, image.content_type)


def _images(answer: declare.Answer) -> list[declare.MediaResult]:
    return list(answer.results)
