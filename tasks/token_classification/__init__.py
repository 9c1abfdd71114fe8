"""Token classification: labeled passages of a text, such as names or personal data."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare
from tasks.token_classification.endpoints import TokenClassificationRequest, read_text
from tasks.token_classification.schema import (
    Entity,
    LabeledSpans,
    TokenInputs,
    TokenOptions,
    evaluation_request,
    row_input,
)


class TokenHyperparameters(BaseModel):
    """Settings of fine-tuning. A new head learns ten times as fast as the encoder; a base with the
    data's labels keeps its head. `max_length` is in tokens; longer texts are cut into windows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=3, ge=1, le=50)
    learning_rate: declare.LearningRate = 1e-4
    batch_size: int = Field(default=16, ge=1, le=512)
    max_length: int = Field(default=128, ge=16, le=8192)
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    validation_fraction: float = Field(default=0.15, gt=0, lt=0.5)
    seed: int = Field(default=17, ge=0, le=2**31 - 1)


class LoraHyperparameters(declare.LoraSettings, TokenHyperparameters):
    """Settings of tuning an adapter. The head learns as fast as LoRA."""

    learning_rate: declare.LearningRate = 1e-3


_BASES = frozenset({"token-classification", "embeddings"})
_TEXT = "Please write to Ana Silva at ana.silva@example.org or call 555-0134."

TASK = declare.Task(
    interface=1,
    name="token-classification",
    title="Token classification",
    description="Marks passages of a text with labels, such as names, places or personal data.",
    modality="text",
    inputs=(declare.Modality.TEXT,),
    outputs=(declare.Modality.SPANS,),
    architectures=(
        "BertForTokenClassification",
        "DistilBertForTokenClassification",
        "MPNetForTokenClassification",
        "RobertaForTokenClassification",
        "XLMRobertaForTokenClassification",
    ),
    engine=declare.BATCH,
    runner="tasks.token_classification.runner:TokenRunner",
    unit=declare.Unit.TOKENS,
    endpoints=(
        declare.Endpoint(
            "/v1/tasks/token-classification",
            read_text,
            named=True,
            request=TokenClassificationRequest,
            summary="Hugging Face's shape: labeled passages, in the order of the text.",
        ),
    ),
    input_schema=TokenInputs,
    option_schema=TokenOptions,
    result_type=list[Entity],
    sample={"inputs": _TEXT},
    playground=declare.Playground(body={"inputs": "$text"}, text=_TEXT),
    row=LabeledSpans,
    row_input=row_input,
    examples=(
        {
            "text": "Please write to Ana Silva.",
            "spans": [
                {"start": 16, "end": 19, "label": "GIVEN_NAME"},
                {"start": 20, "end": 25, "label": "SURNAME"},
            ],
        },
        {"text": "The office is closed on Mondays.", "spans": []},
    ),
    recipes=(
        declare.Recipe(
            method="full",
            title="Full",
            makes="full",
            train="tasks.token_classification.fine_tune:train",
            hyperparameters=TokenHyperparameters,
            bases=_BASES,
        ),
        declare.Recipe(
            method="lora",
            title="LoRA",
            makes="adapter",
            train="tasks.token_classification.fine_tune:train",
            hyperparameters=LoraHyperparameters,
            bases=_BASES,
        ),
    ),
    evaluation=declare.Evaluation(
        request=evaluation_request,
        score="tasks.token_classification.score:score",
        metrics=(
            declare.Metric("f1", "F1"),
            declare.Metric("precision", "Precision"),
            declare.Metric("recall", "Recall"),
            declare.Metric("overlap_recall", "Recall, any overlap"),
        ),
        primary_metric="f1",
        uses_training_rows=True,
    ),
)
