"""Embeddings: a vector for a text, from a sentence encoder without further training."""

from __future__ import annotations

from operator import itemgetter

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare
from tasks.embeddings.endpoints import (
    EmbeddingsRequest,
    EncoderInputs,
    EncoderOptions,
    FeatureExtractionRequest,
    SentenceSimilarityRequest,
    read_embeddings,
    read_feature_extraction,
    read_sentence_similarity,
)


class OneText(BaseModel):
    """One text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = Field(min_length=1, max_length=100_000)


TASK = declare.Task(
    interface=1,
    name="embeddings",
    title="Embeddings",
    description="Turns a text into a vector, so that similar texts lie close together.",
    modality="text",
    inputs=(declare.Modality.TEXT,),
    outputs=(declare.Modality.VECTOR,),
    architectures=(
        "BertModel",
        "DistilBertModel",
        "MPNetModel",
        "RobertaModel",
        "XLMRobertaModel",
    ),
    engine=declare.BATCH,
    runner="tasks.embeddings.runner:EmbeddingsRunner",
    unit=declare.Unit.TOKENS,
    input_schema=EncoderInputs,
    option_schema=EncoderOptions,
    result_type=list[float],
    endpoints=(
        declare.Endpoint(
            "/v1/embeddings",
            read_embeddings,
            request=EmbeddingsRequest,
            summary="OpenAI's shape: a vector for each text.",
        ),
        declare.Endpoint(
            "/v1/tasks/feature-extraction",
            read_feature_extraction,
            named=True,
            request=FeatureExtractionRequest,
            summary="Hugging Face's shape: a list of vectors.",
        ),
        declare.Endpoint(
            "/v1/tasks/sentence-similarity",
            read_sentence_similarity,
            named=True,
            request=SentenceSimilarityRequest,
            summary="Hugging Face's shape: the similarity of each sentence with the source.",
        ),
    ),
    sample={"input": ["An assay office tests every piece of metal."]},
    playground=declare.Playground(
        body={"model": "$model", "input": "$text"},
        text="An assay office tests every piece of metal.",
    ),
    row=OneText,
    row_input=itemgetter("text"),
    examples=(
        {"text": "An assay office tests every piece of metal."},
        {"text": "The hallmark says who made it, and of what."},
    ),
)
