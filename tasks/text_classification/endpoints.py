"""POST /v1/classify, and Hugging Face's text-classification shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from registry.catalog.endpoints import Answer, Plan
from registry.catalog.inputs import TextInputs, TextOptions
from registry.catalog.requests import (
    Body,
    Name,
    Strict,
    Texts,
    User,
    as_list,
    estimate_tokens,
    parse,
)
from registry.catalog.truncation import (
    CohereTruncate,
    TruncatedRequest,
    cohere_side,
    cut_counts,
)


class ClassifyRequest(Strict):
    """POST /v1/classify. `truncate` cuts texts that are longer than the model reads."""

    model: Name
    input: Texts
    truncate: CohereTruncate | None = None
    user: User | None = None


def read_classify(body: Body, request_id: str, name: str) -> Plan:
    """Read POST /v1/classify. Raises RequestInvalid."""
    request = parse(ClassifyRequest, body.data)
    texts = as_list(request.input)
    tokens = estimate_tokens(texts)
    return Plan(
        model=request.model,
        inputs=TextInputs(input=texts),
        options=TextOptions(truncate=cohere_side(request.truncate)),
        renderer=ClassifyRenderer(id=f"classify-{request_id[4:]}", model=request.model),
        tokens=tokens,
        prompt_tokens=tokens,
    )


class Parameters(Strict):
    """`top_k` keeps the best labels only; all by default. Scores of one text sum to 1."""

    top_k: Annotated[int, Field(ge=1, le=1_000)] | None = None
    function_to_apply: Literal["softmax"] | None = None


class TextClassificationRequest(TruncatedRequest):
    """POST /v1/tasks/text-classification/{model}."""

    inputs: Texts
    parameters: Parameters | None = None


def read_text_classification(body: Body, request_id: str, name: str) -> Plan:
    """Read Hugging Face's shape; `name` is the deployment, from the path. Raises RequestInvalid."""
    request = parse(TextClassificationRequest, body.data)
    texts = as_list(request.inputs)
    tokens = estimate_tokens(texts)
    return Plan(
        model=name,
        inputs=TextInputs(input=texts),
        options=TextOptions(truncate=request.side),
        renderer=LabelsRenderer(request.parameters.top_k if request.parameters else None),
        tokens=tokens,
        prompt_tokens=tokens,
    )


@dataclass(slots=True)
class LabelsRenderer:
    """A list of [{label, score}, …] for each text, best first."""

    top_k: int | None

    def whole(self, answer: Answer) -> list[Any]:
        return [scores[: self.top_k] for scores in answer.results]


@dataclass(slots=True)
class ClassifyRenderer:
    """The best label of each input, and the score of every label."""

    id: str
    model: str

    def whole(self, answer: Answer) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "list",
            "model": self.model,
            "data": [
                {"index": index, "label": scores[0]["label"], "scores": scores}
                for index, scores in enumerate(answer.results)
            ],
            "usage": {"prompt_tokens": answer.prompt_tokens, "total_tokens": answer.prompt_tokens},
            **cut_counts(answer),
        }
