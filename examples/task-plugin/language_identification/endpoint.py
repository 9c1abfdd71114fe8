"""POST /v1/tasks/language-identification/{deployment}, in Hugging Face's classification shape."""

from __future__ import annotations

from typing import Any

from registry.catalog.endpoints import Answer, Plan
from registry.catalog.requests import Body, Inputs, Strict, as_list, estimate_tokens, parse


class LanguageRequest(Strict):
    """One text, or a list of texts."""

    inputs: Inputs


def read_inputs(body: Body, request_id: str, name: str) -> Plan:
    """Read the request. `name` is the deployment, from the path. Raises RequestInvalid."""
    texts = as_list(parse(LanguageRequest, body.data).inputs)
    tokens = estimate_tokens(texts)
    return Plan(
        model=name,
        inputs={"inputs": texts},
        renderer=LanguageRenderer(),
        tokens=tokens,
        prompt_tokens=tokens,
        units=sum(map(len, texts)),
    )


class LanguageRenderer:
    """The score of every language for each text, best first."""

    def whole(self, answer: Answer) -> list[Any]:
        return answer.results
