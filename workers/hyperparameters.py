"""Settings that recipes share. Loads no torch, so that declarations can use them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ClassifierSettings(BaseModel):
    """Settings of training a classifier. `learning_rate` is the peak of all weights but the head's.

    `validation_fraction` of the rows is held out; `class_weights` counts rare labels for more.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=4, ge=1, le=50)
    learning_rate: float = Field(default=2e-4, gt=0, le=0.1)
    batch_size: int = Field(default=16, ge=1, le=512)
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    validation_fraction: float = Field(default=0.15, gt=0, lt=0.5)
    class_weights: bool = True
    seed: int = Field(default=17, ge=0, le=2**31 - 1)


class SequenceSettings(BaseModel):
    """Settings of training a model that writes texts. `max_length` is in tokens, of what is read
    and of what is written; longer texts are cut. `label_smoothing` spares it from being too sure.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=3, ge=1, le=100)
    learning_rate: float = Field(default=5e-4, gt=0, le=0.1)
    batch_size: int = Field(default=32, ge=1, le=1024)
    max_length: int = Field(default=128, ge=8, le=4096)
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    validation_fraction: float = Field(default=0.05, gt=0, lt=0.5)
    seed: int = Field(default=17, ge=0, le=2**31 - 1)
