"""Rows and settings of image-text-to-text."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare

# Answers of visual question answering are a few words.
ANSWER_TOKENS = 32


class ImageQuestion(BaseModel):
    """One question about an image, and its answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: declare.ImageFile
    question: str = Field(min_length=1, max_length=2_000)
    answer: str = Field(min_length=1, max_length=2_000)


class VisionHyperparameters(BaseModel):
    """Settings of training projector and language model. `max_length` counts tokens, including the
    image's tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(default=700, ge=1, le=1_000_000)
    learning_rate: declare.LearningRate = 2e-5
    batch_size: int = Field(default=16, ge=1, le=512)
    max_length: int = Field(default=1_024, ge=16, le=32_768)
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    warmup_ratio: float = Field(default=0.05, ge=0, le=1)
    validation_fraction: float = Field(default=0.05, gt=0, lt=0.5)
    seed: int = Field(default=17, ge=0, le=2**31 - 1)


def question_inputs(question: str, image: Any) -> declare.GenerationInputs:
    """Return the inputs of a question about one image."""
    parts: list[declare.MessagePart] = [
        declare.ImagePart(type="image"),
        declare.TextPart(type="text", text=question),
    ]
    return declare.GenerationInputs(
        messages=[declare.ChatMessage(role="user", content=parts)], images=[image]
    )
