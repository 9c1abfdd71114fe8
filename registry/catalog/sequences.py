"""Inputs, options and endpoint of text-to-text tasks, such as summarization and translation.

Loads neither Django nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from registry.catalog.endpoints import Answer, Plan
from registry.catalog.inputs import Inputs, TextOptions
from registry.catalog.requests import Body, Strict, estimate_tokens, parse
from registry.catalog.truncation import Truncation, pipeline_side

MAX_CHARACTERS = 100_000

# A text of a request, or of a dataset's row.
SequenceText = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)]
Beams = Annotated[int, Field(ge=1, le=8)]
NewTokens = Annotated[int, Field(ge=1, le=1_024)]


class SequenceInputs(Inputs):
    """One text."""

    text: SequenceText


class SequenceOptions(TextOptions):
    """Generation settings. Without `max_new_tokens` the length depends on that of the text."""

    num_beams: Beams = 1
    max_new_tokens: NewTokens | None = None


class GenerateParameters(Strict):
    """Generation settings: `num_beams` 1 takes the likeliest token at each step."""

    max_new_tokens: NewTokens | None = None
    num_beams: Beams | None = None


class SequenceParameters(Strict):
    """A text over the model's maximum length is rejected unless `truncation` cuts it.

    The model's tokenizer always cleans up spaces.
    """

    truncation: Truncation | None = None
    generate_parameters: GenerateParameters | None = None
    clean_up_tokenization_spaces: Literal[True] | None = None


class SequenceRequest(Strict):
    """One text, in Hugging Face's format."""

    inputs: SequenceText
    parameters: SequenceParameters | None = None


def read_sequence(body: Body, name: str, schema: type[SequenceRequest], answer: str) -> Plan:
    """Return the plan of a request to the deployment `name`; the text is the field `answer` of the
    response. Raises RequestInvalid."""
    request = parse(schema, body.data)
    parameters = request.parameters or SequenceParameters()
    settings = parameters.generate_parameters or GenerateParameters()
    tokens = estimate_tokens([request.inputs])
    return Plan(
        model=name,
        inputs=SequenceInputs(text=request.inputs),
        options=SequenceOptions(
            truncate=pipeline_side(parameters.truncation),
            **settings.model_dump(exclude_none=True),
        ),
        renderer=_SequenceRenderer(answer),
        tokens=tokens,
        prompt_tokens=tokens,
        units=len(request.inputs),
    )


@dataclass(frozen=True, slots=True)
class _SequenceRenderer:
    """Renderer of the text as the only item of a list, as clients expect it."""

    field: str

    def whole(self, answer: Answer) -> list[Any]:
        return [{self.field: text} for text in answer.results]
