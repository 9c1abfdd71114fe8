"""Reranking: sort documents by how well each answers a query, with a cross-encoder."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare
from tasks.rerank.endpoints import RerankRequest, read_rerank, read_rerank_v2
from tasks.rerank.schema import RankedDocuments, RerankInputs


class CrossEncoderHyperparameters(BaseModel):
    """Settings of training on query–document pairs. `negatives` is the number of documents per
    query that do not answer it; `max_length` counts the tokens of query and document together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=2, ge=1, le=50)
    learning_rate: declare.LearningRate = 3e-5
    batch_size: int = Field(default=16, ge=1, le=512)
    max_length: int = Field(default=160, ge=8, le=8192)
    negatives: int = Field(default=4, ge=1, le=100)
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.5)
    seed: int = Field(default=17, ge=0, le=2**31 - 1)


def row_input(row: dict[str, Any]) -> str:
    """Return the query: the same query in training and test data is a leak."""
    return str(row["query"])


def evaluation_request(row: dict[str, Any]) -> tuple[RerankInputs, declare.TextOptions]:
    """Return the request that scores the row's documents."""
    return RerankInputs(query=row["query"], documents=row["documents"]), declare.TextOptions()


TASK = declare.Task(
    interface=1,
    name="rerank",
    title="Reranking",
    description="Sorts documents by how well each of them answers a query.",
    modality="text",
    inputs=(declare.Modality.TEXT,),
    outputs=(declare.Modality.RANKING,),
    architectures=(
        "BertForSequenceClassification",
        "DistilBertForSequenceClassification",
        "MPNetForSequenceClassification",
        "RobertaForSequenceClassification",
        "XLMRobertaForSequenceClassification",
    ),
    engine=declare.BATCH,
    runner="tasks.rerank.runner:RerankRunner",
    unit=declare.Unit.TOKENS,
    input_schema=RerankInputs,
    option_schema=declare.TextOptions,
    result_type=float,
    endpoints=(
        declare.Endpoint(
            "/v1/rerank",
            read_rerank,
            request=RerankRequest,
            summary="Cohere's and Jina's shape: the documents that answer the query, best first.",
        ),
        declare.Endpoint(
            "/v2/rerank",
            read_rerank_v2,
            request=RerankRequest,
            summary="The same, under the path that Cohere's newer client calls.",
        ),
    ),
    sample={
        "query": "How do I copy a list?",
        "documents": [
            "Call list.sort() to sort the items in place.",
            "Call list.copy(), or slice the whole list with items[:].",
        ],
        "top_n": 1,
        "return_documents": True,
    },
    playground=declare.Playground(
        body={"model": "$model", "query": "$text", "documents": "$lines"},
        text="How do I copy a list?",
        lines=(
            "Call list.sort() to sort the items in place.",
            "Call list.copy(), or slice the whole list with items[:].",
        ),
        lines_label="Documents",
    ),
    row=RankedDocuments,
    row_input=row_input,
    examples=(
        {
            "query": "How do I copy a list?",
            "documents": [
                "Call list.sort() to sort the items in place.",
                "Call list.copy(), or slice the whole list with items[:].",
            ],
            "relevant": [1],
        },
        {
            "query": "What is a tuple?",
            "documents": [
                "A tuple is an immutable sequence.",
                "A dictionary maps keys to values.",
            ],
            "relevant": [0],
        },
    ),
    recipes=(
        declare.Recipe(
            method="full",
            title="Full",
            makes="full",
            train="tasks.rerank.fine_tune:train",
            hyperparameters=CrossEncoderHyperparameters,
            bases=frozenset({"rerank", "embeddings"}),
        ),
    ),
    evaluation=declare.Evaluation(
        request=evaluation_request,
        score="tasks.rerank.score:score",
        metrics=(
            declare.Metric("mrr_10", "MRR@10"),
            declare.Metric("ndcg_10", "nDCG@10"),
        ),
        primary_metric="mrr_10",
    ),
)
