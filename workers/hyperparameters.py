"""Settings that recipes share. Does not load torch, so that declarations can use them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

LearningRate = Annotated[float, Field(gt=0, le=0.1)]
# Highest rank of LoRA that is trained and served.
MAX_RANK = 256


class LoraSettings(BaseModel):
    """Settings of LoRA, whose output is multiplied by `lora_alpha / lora_rank`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lora_rank: int = Field(default=8, ge=1, le=MAX_RANK)
    lora_alpha: int = Field(default=16, ge=1, le=1024)
    lora_dropout: float = Field(default=0.05, ge=0, lt=1)


class ClassifierSettings(BaseModel):
    """Settings for training a classifier.

    `learning_rate` is the peak rate of all weights except the head's. `validation_fraction` of the
    rows is held out; `class_weights` gives rare labels more weight.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=4, ge=1, le=50)
    learning_rate: LearningRate = 2e-4
    batch_size: int = Field(default=16, ge=1, le=512)
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    validation_fraction: float = Field(default=0.15, gt=0, lt=0.5)
    class_weights: bool = True
    seed: int = Field(default=17, ge=0, le=2**31 - 1)


class SequenceSettings(BaseModel):
    """Settings for training a model that writes text. `max_length` is the longest input and the
    longest output in tokens; longer texts are cut. `label_smoothing` reduces overconfidence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=3, ge=1, le=100)
    learning_rate: LearningRate = 5e-4
    batch_size: int = Field(default=32, ge=1, le=1024)
    max_length: int = Field(default=128, ge=8, le=4096)
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    validation_fraction: float = Field(default=0.05, gt=0, lt=0.5)
    seed: int = Field(default=17, ge=0, le=2**31 - 1)
