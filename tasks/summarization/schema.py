"""Rows, inputs and options of summarization. Loads neither torch nor Django."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare

MAX_CHARACTERS = 100_000

Beams = Annotated[int, Field(ge=1, le=8)]
NewTokens = Annotated[int, Field(ge=1, le=1_024)]


class SummarizedText(BaseModel):
    """A text and its summary."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = Field(min_length=1, max_length=MAX_CHARACTERS)
    summary: str = Field(min_length=1, max_length=MAX_CHARACTERS)


class SummaryInputs(declare.Inputs):
    """One text."""

    text: str = Field(min_length=1, max_length=MAX_CHARACTERS)


class SummaryOptions(declare.TextOptions):
    """Without `max_new_tokens` the length follows that of the text."""

    num_beams: Beams = 1
    max_new_tokens: NewTokens | None = None


def row_input(row: dict[str, Any]) -> str:
    """Return the text that is read."""
    return str(row["text"])


def evaluation_request(row: dict[str, Any]) -> tuple[SummaryInputs, SummaryOptions]:
    """Return the request that summarizes the row's text."""
    return SummaryInputs(text=row["text"]), SummaryOptions()


def feedback_row(inputs: SummaryInputs, answer: str) -> dict[str, Any]:
    """Return the row that teaches the summary of a text."""
    return {"text": inputs.text, "summary": answer}
