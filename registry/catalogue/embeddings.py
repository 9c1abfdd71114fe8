"""Embeddings: a vector for a text, from a sentence encoder as it is."""

from __future__ import annotations

from operator import itemgetter

from pydantic import BaseModel, ConfigDict, Field

from registry.catalogue.base import Task


class EmbeddingsRow(BaseModel):
    """One text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = Field(min_length=1, max_length=100_000)


class NoHyperparameters(BaseModel):
    """There is no trainer for this task."""

    model_config = ConfigDict(extra="forbid")


TASK = Task(
    name="embeddings",
    title="Embeddings",
    modality="text",
    endpoint="/v1/embeddings",
    engine="workers.engines.encoder:EncoderEngine",
    evaluator="",
    trainer="",
    row=EmbeddingsRow,
    row_input=itemgetter("text"),
    hyperparameters=NoHyperparameters,
    methods={},
    metrics=(),
    primary_metric="",
    sample={"input": ["An assay office tests every piece of metal."]},
    description="Turns a text into a vector, so that similar texts lie close together.",
    examples=(
        {"text": "An assay office tests every piece of metal."},
        {"text": "The hallmark says who made it, and of what."},
    ),
)
