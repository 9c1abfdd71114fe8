"""POST /v1/tasks/token-classification/{model}, in the shape of Hugging Face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from assay.plugins import declare
from tasks.token_classification.schema import (
    MAX_CHARACTERS,
    IgnoredLabels,
    Strategy,
    TokenInputs,
    TokenOptions,
)

# Windows of a long text overlap, so some tokens are read twice.
_SHARED = 1.25


class Parameters(declare.Strict):
    """Settings of the passages. Assay chooses the windows of a long text, so `stride` is not
    supported."""

    aggregation_strategy: Strategy | None = None
    ignore_labels: IgnoredLabels | None = None
    stride: None = None


class TokenClassificationRequest(declare.Strict):
    """One text."""

    inputs: Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)]
    parameters: Parameters | None = None


def read_text(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read the request; `name` is the deployment, from the path. Raises RequestInvalid."""
    request = declare.parse(TokenClassificationRequest, body.data)
    settings = request.parameters.model_dump(exclude_none=True) if request.parameters else {}
    tokens = round(declare.estimate_tokens([request.inputs]) * _SHARED) + 2
    return declare.Plan(
        model=name,
        inputs=TokenInputs(text=request.inputs),
        options=TokenOptions(**settings),
        renderer=EntityRenderer(),
        tokens=tokens,
        prompt_tokens=tokens,
    )


@dataclass(slots=True)
class EntityRenderer:
    """The passages, or tokens, in the order of the text."""

    def whole(self, answer: declare.Answer) -> list[Any]:
        entities: list[Any] = answer.results[0]
        return entities
