"""POST /v1/tasks/language-identification/{deployment}, in Hugging Face's classification shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from registry.catalog.endpoints import Answer, Plan
from registry.catalog.inputs import TextInputs
from registry.catalog.requests import Body, Strict, Texts, as_list, estimate_tokens, parse


class Parameters(Strict):
    """Options. `top_k` is how many languages to return; all by default."""

    top_k: Annotated[int, Field(ge=1, le=1_000)] | None = None


class LanguageRequest(Strict):
    """One text, or a list of texts."""

    inputs: Texts
    parameters: Parameters = Parameters()


def read_inputs(body: Body, request_id: str, name: str) -> Plan:
    """Read the request. `name` is the deployment, from the path. Raises RequestInvalid."""
    request = parse(LanguageRequest, body.data)
    texts = as_list(request.inputs)
    tokens = estimate_tokens(texts)
    return Plan(
        model=name,
        inputs=TextInputs(input=texts),
        renderer=LanguageRenderer(request.parameters.top_k),
        tokens=tokens,
        prompt_tokens=tokens,
        units=sum(map(len, texts)),
    )


@dataclass(frozen=True, slots=True)
class LanguageRenderer:
    """The scores of the `top_k` best languages for each text, best first; of all if None."""

    top_k: int | None

    def whole(self, answer: Answer) -> list[Any]:
        return [scores[: self.top_k] for scores in answer.results]
