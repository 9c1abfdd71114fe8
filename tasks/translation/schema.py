"""Rows, inputs and options of translation. Loads neither torch nor Django."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare

MAX_CHARACTERS = 100_000

Beams = Annotated[int, Field(ge=1, le=8)]
NewTokens = Annotated[int, Field(ge=1, le=1_024)]


class TranslatedText(BaseModel):
    """A text and its translation."""

    model_config = ConfigDict(extra="forbid", strict=True)

    source: str = Field(min_length=1, max_length=MAX_CHARACTERS)
    target: str = Field(min_length=1, max_length=MAX_CHARACTERS)


class TranslationInputs(declare.Inputs):
    """One text."""

    text: str = Field(min_length=1, max_length=MAX_CHARACTERS)


class TranslationOptions(declare.TextOptions):
    """Without `max_new_tokens` the length follows that of the text."""

    num_beams: Beams = 1
    max_new_tokens: NewTokens | None = None


def row_input(row: dict[str, Any]) -> str:
    """Return the text that is read."""
    return str(row["source"])


def evaluation_request(row: dict[str, Any]) -> tuple[TranslationInputs, TranslationOptions]:
    """Return the request that translates the row's text."""
    return TranslationInputs(text=row["source"]), TranslationOptions()


def feedback_row(inputs: TranslationInputs, answer: str) -> dict[str, Any]:
    """Return the row that teaches the translation of a text."""
    return {"source": inputs.text, "target": answer}
