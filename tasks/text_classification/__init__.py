"""Text classification: one label out of a fixed set, by a fine-tuned encoder."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare
from tasks.text_classification.endpoints import (
    ClassifyRequest,
    TextClassificationRequest,
    read_classify,
    read_text_classification,
)

_BASES = frozenset({"text-classification", "embeddings"})


class LabeledText(BaseModel):
    """One text and its label."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = Field(min_length=1, max_length=100_000)
    label: str = Field(min_length=1, max_length=100)


class FineTuneHyperparameters(declare.ClassifierSettings):
    """Settings of fine-tuning. The new head learns ten times as fast as the encoder; `max_length`
    is in tokens.
    """

    max_length: int = Field(default=128, ge=8, le=8192)


class LoraHyperparameters(declare.LoraSettings, FineTuneHyperparameters):
    """Settings of tuning an adapter. The new head learns as fast as LoRA."""

    learning_rate: declare.LearningRate = 1e-3


def evaluation_request(row: dict[str, Any]) -> tuple[declare.TextInputs, declare.TextOptions]:
    """Return the request that classifies the row's text."""
    return declare.TextInputs(input=[row["text"]]), declare.TextOptions()


def feedback_row(inputs: declare.TextInputs, answer: str) -> dict[str, Any]:
    """Return the row that teaches the label of one text."""
    return {"text": inputs.only, "label": answer.strip()}


TASK = declare.Task(
    interface=1,
    name="text-classification",
    title="Text classification",
    description="Assigns a text one of the labels in its training data.",
    modality="text",
    inputs=(declare.Modality.TEXT,),
    outputs=(declare.Modality.LABEL,),
    architectures=(
        "BertForSequenceClassification",
        "DistilBertForSequenceClassification",
        "MPNetForSequenceClassification",
        "RobertaForSequenceClassification",
        "XLMRobertaForSequenceClassification",
    ),
    engine=declare.BATCH,
    runner="tasks.text_classification.runner:ClassifierRunner",
    unit=declare.Unit.TOKENS,
    input_schema=declare.TextInputs,
    option_schema=declare.TextOptions,
    result_type=list[declare.Label],
    endpoints=(
        declare.Endpoint(
            "/v1/classify",
            read_classify,
            request=ClassifyRequest,
            summary="The best label of each text, and the score of every label.",
        ),
        declare.Endpoint(
            "/v1/tasks/text-classification",
            read_text_classification,
            named=True,
            request=TextClassificationRequest,
            summary="Hugging Face's shape: `[{label, score}]` for each text.",
        ),
    ),
    sample={"input": ["It worked within a day and I had no side effects."]},
    playground=declare.Playground(
        body={"model": "$model", "input": "$text"},
        text="It worked within a day and I had no side effects.",
    ),
    row=LabeledText,
    row_input=itemgetter("text"),
    examples=(
        {"text": "It worked within a day and I had no side effects.", "label": "positive"},
        {"text": "Nothing changed after two weeks.", "label": "negative"},
    ),
    recipes=(
        declare.Recipe(
            method="full",
            title="Full",
            makes="full",
            train="tasks.text_classification.fine_tune:train",
            hyperparameters=FineTuneHyperparameters,
            bases=_BASES,
        ),
        declare.Recipe(
            method="lora",
            title="LoRA",
            makes="adapter",
            train="tasks.text_classification.fine_tune:train",
            hyperparameters=LoraHyperparameters,
            bases=_BASES,
        ),
    ),
    evaluation=declare.Evaluation(
        request=evaluation_request,
        score="tasks.text_classification.score:score",
        metrics=(
            declare.Metric("accuracy", "Accuracy", proportion=True),
            declare.Metric("macro_f1", "Macro-F1"),
        ),
        primary_metric="macro_f1",
        uses_training_rows=True,
    ),
    feedback_row=feedback_row,
)
