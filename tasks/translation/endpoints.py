"""POST /v1/tasks/translation/{model}, in the shape of Hugging Face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from assay.plugins import declare
from tasks.translation.schema import (
    MAX_CHARACTERS,
    Beams,
    NewTokens,
    TranslationInputs,
    TranslationOptions,
)


class GenerateParameters(declare.Strict):
    """Settings of writing: `num_beams` 1 takes the likeliest token at each place."""

    max_new_tokens: NewTokens | None = None
    num_beams: Beams | None = None


class Parameters(declare.Strict):
    """A text that is longer than the model reads is refused unless `truncation` says to cut it.

    Spaces are always cleaned up as the model's tokenizer does.
    A model translates between the languages that it was trained on, so `src_lang` and `tgt_lang`
    are not taken.
    """

    truncation: declare.Truncation | None = None
    generate_parameters: GenerateParameters | None = None
    clean_up_tokenization_spaces: Literal[True] | None = None
    src_lang: None = None
    tgt_lang: None = None


class TranslationRequest(declare.Strict):
    """One text."""

    inputs: Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)]
    parameters: Parameters | None = None


def read_translation(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read the request; `name` is the deployment, from the path. Raises RequestInvalid."""
    request = declare.parse(TranslationRequest, body.data)
    parameters = request.parameters or Parameters()
    given = (parameters.generate_parameters or GenerateParameters()).model_dump(exclude_none=True)
    options = TranslationOptions(truncate=declare.pipeline_side(parameters.truncation), **given)
    tokens = declare.estimate_tokens([request.inputs])
    return declare.Plan(
        model=name,
        inputs=TranslationInputs(text=request.inputs),
        options=options,
        renderer=TranslationRenderer(),
        tokens=tokens,
        prompt_tokens=tokens,
        units=len(request.inputs),
    )


@dataclass(slots=True)
class TranslationRenderer:
    """The translation, in a list of one, as clients expect it."""

    def whole(self, answer: declare.Answer) -> list[Any]:
        return [{"translation_text": text} for text in answer.results]
