"""Text classification: one label out of a fixed set, by a tuned encoder."""

from __future__ import annotations

from operator import itemgetter

from pydantic import BaseModel, ConfigDict, Field

from registry.catalogue.base import Metric, Task


class TextClassificationRow(BaseModel):
    """One labelled text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = Field(min_length=1, max_length=100_000)
    label: str = Field(min_length=1, max_length=100)


class TextClassificationHyperparameters(BaseModel):
    """How an encoder is tuned. `learning_rate` is the encoder's peak (the new head's is ten times
    that); lengths are in tokens.
    """

    model_config = ConfigDict(extra="forbid")

    epochs: int = Field(default=4, ge=1, le=50)
    learning_rate: float = Field(default=2e-4, gt=0, le=0.1)
    batch_size: int = Field(default=16, ge=1, le=512)
    max_length: int = Field(default=128, ge=8, le=8192)
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    validation_fraction: float = Field(default=0.15, gt=0, lt=0.5)
    class_weights: bool = True
    seed: int = Field(default=17, ge=0, le=2**31 - 1)


TASK = Task(
    name="text-classification",
    title="Text classification",
    modality="text",
    endpoint="/v1/classify",
    engine="workers.engines.encoder:EncoderEngine",
    evaluator="workers.trainers.evaluate_classifier:evaluate",
    trainer="workers.trainers.classifier:train",
    row=TextClassificationRow,
    row_input=itemgetter("text"),
    hyperparameters=TextClassificationHyperparameters,
    methods={"full": "full"},
    metrics=(
        Metric("accuracy", "Accuracy", proportion=True),
        Metric("macro_f1", "Macro-F1"),
    ),
    primary_metric="macro_f1",
    trained_baseline=True,
    sample={"input": ["It worked within a day and I had no side effects."]},
    description="Sorts a text into one of the labels that its training data names.",
    examples=(
        {"text": "It worked within a day and I had no side effects.", "label": "positive"},
        {"text": "Nothing changed after two weeks.", "label": "negative"},
    ),
)
