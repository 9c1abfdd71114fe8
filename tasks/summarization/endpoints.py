"""POST /v1/tasks/summarization/{model}, in the shape of Hugging Face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from assay.plugins import declare
from tasks.summarization.schema import (
    MAX_CHARACTERS,
    Beams,
    NewTokens,
    SummaryInputs,
    SummaryOptions,
)


class GenerateParameters(declare.Strict):
    """Settings of writing: `num_beams` 1 takes the likeliest token at each place."""

    max_new_tokens: NewTokens | None = None
    num_beams: Beams | None = None


class Parameters(declare.Strict):
    """A text that is longer than the model reads is refused unless `truncation` says to cut it.

    Spaces are always cleaned up as the model's tokenizer does.
    """

    truncation: declare.Truncation | None = None
    generate_parameters: GenerateParameters | None = None
    clean_up_tokenization_spaces: Literal[True] | None = None


class SummaryRequest(declare.Strict):
    """One text."""

    inputs: Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)]
    parameters: Parameters | None = None


def read_summary(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read the request; `name` is the deployment, from the path. Raises RequestInvalid."""
    request = declare.parse(SummaryRequest, body.data)
    parameters = request.parameters or Parameters()
    given = (parameters.generate_parameters or GenerateParameters()).model_dump(exclude_none=True)
    options = SummaryOptions(truncate=declare.pipeline_side(parameters.truncation), **given)
    tokens = declare.estimate_tokens([request.inputs])
    return declare.Plan(
        model=name,
        inputs=SummaryInputs(text=request.inputs),
        options=options,
        renderer=SummaryRenderer(),
        tokens=tokens,
        prompt_tokens=tokens,
        units=len(request.inputs),
    )


@dataclass(slots=True)
class SummaryRenderer:
    """The summary, in a list of one, as clients expect it."""

    def whole(self, answer: declare.Answer) -> list[Any]:
        return [{"summary_text": text} for text in answer.results]
