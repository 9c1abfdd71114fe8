"""Rows, inputs and results of moderation. Loads neither torch nor Django."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from assay.plugins import declare

MAX_CHARACTERS = 100_000
# Names of labels for harmless texts; all other labels are categories.
HARMLESS = frozenset({"safe", "benign", "none", "ok", "harmless", "neutral", "clean", "o"})


class JudgedText(BaseModel):
    """A text and its category, or `safe` for a harmless text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = Field(min_length=1, max_length=MAX_CHARACTERS)
    label: str = Field(min_length=1, max_length=100)


class Judged(TypedDict):
    """The score of each category, from 0 to 1, and the flagged categories."""

    scores: dict[str, float]
    flagged: list[str]


def is_harmless(label: str) -> bool:
    """Return whether a label means that a text is harmless."""
    return label.lower() in HARMLESS


def row_input(row: dict[str, Any]) -> str:
    """Return the text."""
    return str(row["text"])


def evaluation_request(row: dict[str, Any]) -> tuple[declare.TextInputs, declare.TextOptions]:
    """Return the request that judges the row's text."""
    return declare.TextInputs(input=[row["text"]]), declare.TextOptions()


def feedback_row(inputs: declare.TextInputs, answer: str) -> dict[str, Any]:
    """Return the row that teaches the category of one text."""
    return {"text": inputs.only, "label": answer.strip()}
