"""Text to image: images drawn from a prompt by latent diffusion."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare
from tasks.text_to_image.endpoints import (
    ImagesRequest,
    TextToImageRequest,
    read_images,
    read_text_to_image,
)
from tasks.text_to_image.schema import CaptionedImage, DrawingInputs, DrawingOptions


class DenoiserHyperparameters(BaseModel):
    """Settings of training the denoiser. `caption_dropout` is the share of images trained without
    their caption, which guidance needs; `ema_decay` 0 saves the last weights instead of their
    moving average."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(default=500, ge=1, le=100_000)
    learning_rate: declare.LearningRate = 1e-4
    batch_size: int = Field(default=16, ge=1, le=512)
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    warmup_ratio: float = Field(default=0.05, ge=0, le=1)
    caption_dropout: float = Field(default=0.1, ge=0, lt=1)
    ema_decay: float = Field(default=0.995, ge=0, lt=1)
    validation_fraction: float = Field(default=0.05, gt=0, lt=0.5)
    seed: int = Field(default=17, ge=0, le=2**31 - 1)


def evaluation_request(row: dict[str, Any]) -> tuple[DrawingInputs, DrawingOptions]:
    """Return the request that draws the row's caption, with a seed derived from the row's image."""
    seed = int(Path(row["image"]).name[:8], 16)
    return DrawingInputs(prompt=row["text"], seed=seed), DrawingOptions()


TASK = declare.Task(
    interface=1,
    name="text-to-image",
    title="Text to image",
    description="Draws images from a prompt.",
    modality="text",
    family=declare.Family.MULTIMODAL,
    inputs=(declare.Modality.TEXT,),
    outputs=(declare.Modality.IMAGE,),
    architectures=("StableDiffusionPipeline",),
    components=(
        "diffusers.AutoencoderKL",
        "diffusers.DDIMScheduler",
        "diffusers.DDPMScheduler",
        "diffusers.DPMSolverMultistepScheduler",
        "diffusers.EulerAncestralDiscreteScheduler",
        "diffusers.EulerDiscreteScheduler",
        "diffusers.PNDMScheduler",
        "diffusers.UNet2DConditionModel",
        "stable_diffusion.StableDiffusionSafetyChecker",
        "transformers.CLIPFeatureExtractor",
        "transformers.CLIPImageProcessor",
        "transformers.CLIPTextModel",
        "transformers.CLIPTokenizer",
        "transformers.CLIPTokenizerFast",
    ),
    engine=declare.BATCH,
    runner="tasks.text_to_image.runner:TextToImageRunner",
    unit=declare.Unit.IMAGES,
    input_schema=DrawingInputs,
    option_schema=DrawingOptions,
    endpoints=(
        declare.Endpoint(
            "/v1/images/generations",
            read_images,
            request=ImagesRequest,
            summary="OpenAI's shape: images as `b64_json` (PNG), each with its seed.",
        ),
        declare.Endpoint(
            "/v1/tasks/text-to-image",
            read_text_to_image,
            named=True,
            request=TextToImageRequest,
            summary="Hugging Face's shape: the PNG itself.",
        ),
    ),
    sample={"prompt": "a photo of a sneaker", "n": 1, "response_format": "b64_json"},
    playground=declare.Playground(
        body={"model": "$model", "prompt": "$text", "n": 1, "response_format": "b64_json"},
        text="a photo of a sneaker",
    ),
    row=CaptionedImage,
    row_input=itemgetter("image"),
    examples=(
        {
            "image": "6c1e4d2fa3e5d2b0f4a7c8d9e0b1a2c3d4e5f60718293a4b5c6d7e8f90a1b2c3",
            "text": "a photo of a sneaker",
        },
        {
            "image": "0f1e2d3c4b5a69788796a5b4c3d2e1f00112233445566778899aabbccddeeff0",
            "text": "a photo of a dress",
        },
    ),
    recipes=(
        declare.Recipe(
            method="full",
            title="Full",
            makes="full",
            train="tasks.text_to_image.fine_tune:train",
            hyperparameters=DenoiserHyperparameters,
        ),
    ),
    evaluation=declare.Evaluation(
        request=evaluation_request,
        score="tasks.text_to_image.score:score",
        metrics=(
            declare.Metric("prompt_match", "Prompt match", proportion=True),
            declare.Metric("variety", "Variety"),
        ),
        primary_metric="prompt_match",
        uses_training_rows=True,
    ),
)
