"""POST /v1/tasks/language-identification/{deployment}, in Hugging Face's classification shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from assay.plugins import declare


class Parameters(declare.Strict):
    """Options. `top_k` is the number of languages to return; the default is all."""

    top_k: Annotated[int, Field(ge=1, le=1_000)] | None = None


class LanguageRequest(declare.Strict):
    """One text, or a list of texts."""

    inputs: declare.Texts
    parameters: Parameters = Parameters()


def read_inputs(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read the request. `name` is the deployment, from the path. Raises RequestInvalid."""
    request = declare.parse(LanguageRequest, body.data)
    texts = declare.as_list(request.inputs)
    tokens = declare.estimate_tokens(texts)
    return declare.Plan(
        model=name,
        inputs=declare.TextInputs(input=texts),
        renderer=LanguageRenderer(request.parameters.top_k),
        tokens=tokens,
        prompt_tokens=tokens,
        units=sum(map(len, texts)),
    )


@dataclass(frozen=True, slots=True)
class LanguageRenderer:
    """The scores of the `top_k` best languages for each text, best first; all if None."""

    top_k: int | None

    def whole(self, answer: declare.Answer) -> list[Any]:
        return [scores[: self.top_k] for scores in answer.results]
