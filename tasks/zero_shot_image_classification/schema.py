"""Rows, inputs, options and results of zero-shot image classification."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare

MAX_LABELS = 1_000
MAX_IMAGES = 16

Label = Annotated[str, Field(min_length=1, max_length=1_000)]


class CaptionedImage(BaseModel):
    """An image and its caption."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: declare.ImageFile
    text: str = Field(min_length=1, max_length=2_000)


class ImagesAndTexts(declare.Inputs):
    """Images and texts. The vectors of the images are returned first."""

    images: list[declare.ImageInput] = Field(default_factory=list, max_length=MAX_IMAGES)
    texts: list[declare.TextInput] = Field(default_factory=list, max_length=declare.MAX_TEXTS)


class RankingOptions(declare.TextOptions):
    """Options of the result. With `labels`, one for each text, it is their scores for the single
    image, not vectors."""

    labels: Annotated[list[Label], Field(max_length=MAX_LABELS)] | None = None


class ContrastiveHyperparameters(BaseModel):
    """Settings of contrastive training. Larger batches teach more, because every other caption of a
    batch is a wrong answer. `mirror` flips half of the images left to right."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(default=600, ge=1, le=1_000_000)
    learning_rate: declare.LearningRate = 1e-5
    batch_size: int = Field(default=128, ge=2, le=4_096)
    weight_decay: float = Field(default=0.05, ge=0, le=1)
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    mirror: bool = False
    validation_fraction: float = Field(default=0.05, gt=0, lt=0.5)
    seed: int = Field(default=17, ge=0, le=2**31 - 1)
