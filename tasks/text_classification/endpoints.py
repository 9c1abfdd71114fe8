"""POST /v1/classify, and Hugging Face's text-classification shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from assay.plugins import declare


class ClassifyRequest(declare.Strict):
    """POST /v1/classify. `truncate` cuts texts that exceed the model's context."""

    model: declare.Name
    input: declare.Texts
    truncate: declare.CohereTruncate | None = None
    user: declare.User | None = None


def read_classify(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read POST /v1/classify. Raises RequestInvalid."""
    request = declare.parse(ClassifyRequest, body.data)
    texts = declare.as_list(request.input)
    tokens = declare.estimate_tokens(texts)
    return declare.Plan(
        model=request.model,
        inputs=declare.TextInputs(input=texts),
        user=request.user or "",
        options=declare.TextOptions(truncate=declare.cohere_side(request.truncate)),
        renderer=ClassifyRenderer(id=f"classify-{request_id[4:]}", model=request.model),
        tokens=tokens,
        prompt_tokens=tokens,
    )


class Parameters(declare.Strict):
    """`top_k` limits the number of labels; the default is all. Scores of one text sum to 1."""

    top_k: Annotated[int, Field(ge=1, le=1_000)] | None = None
    function_to_apply: Literal["softmax"] | None = None


class TextClassificationRequest(declare.TruncatedRequest):
    """POST /v1/tasks/text-classification/{model}."""

    inputs: declare.Texts
    parameters: Parameters | None = None


def read_text_classification(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read Hugging Face's shape; `name` is the deployment, from the path. Raises RequestInvalid."""
    request = declare.parse(TextClassificationRequest, body.data)
    texts = declare.as_list(request.inputs)
    tokens = declare.estimate_tokens(texts)
    return declare.Plan(
        model=name,
        inputs=declare.TextInputs(input=texts),
        options=declare.TextOptions(truncate=request.side),
        renderer=LabelsRenderer(request.parameters.top_k if request.parameters else None),
        tokens=tokens,
        prompt_tokens=tokens,
    )


@dataclass(slots=True)
class LabelsRenderer:
    """A list of [{label, score}, …] for each text, best first."""

    top_k: int | None

    def whole(self, answer: declare.Answer) -> list[Any]:
        return [scores[: self.top_k] for scores in answer.results]


@dataclass(slots=True)
class ClassifyRenderer:
    """The best label of each input, and the score of every label."""

    id: str
    model: str

    def whole(self, answer: declare.Answer) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "list",
            "model": self.model,
            "data": [
                {"index": index, "label": scores[0]["label"], "scores": scores}
                for index, scores in enumerate(answer.results)
            ],
            "usage": {"prompt_tokens": answer.prompt_tokens, "total_tokens": answer.prompt_tokens},
            **declare.cut_counts(answer),
        }
