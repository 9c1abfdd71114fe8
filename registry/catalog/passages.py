"""Column types that mark passages, optionally with labels, in a text of the same row."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MAX_PASSAGES = 2_000
_OF = "x-assay-passages-of"


class Passage(BaseModel):
    """Characters of a text from `start` up to, but not including, `end`, counted from 0."""

    model_config = ConfigDict(extra="forbid", strict=True)

    start: int = Field(ge=0)
    end: int = Field(ge=1)


class Span(Passage):
    """A passage and its label."""

    label: str = Field(min_length=1, max_length=100)


# Labeled passages of the column `text`.
Spans = Annotated[list[Span], Field(max_length=MAX_PASSAGES, json_schema_extra={_OF: "text"})]
# Passages of the column `context`.
ContextPassages = Annotated[
    list[Passage], Field(max_length=MAX_PASSAGES, json_schema_extra={_OF: "context"})
]


def passage_columns(row: type[BaseModel]) -> dict[str, str]:
    """Return the columns that mark passages, each with the column of their text."""
    return {
        name: str(field.json_schema_extra[_OF])
        for name, field in row.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and _OF in field.json_schema_extra
    }


def check_passages(text: str, passages: Sequence[Passage], *, overlap: bool = False) -> None:
    """Check that each passage contains text, and that passages do not overlap.

    Raises:
        ValueError: names the first faulty passage, counted from 1.
    """
    for number, each in enumerate(passages, start=1):
        if not each.start < each.end <= len(text):
            raise ValueError(
                f"passage {number} ({each.start} to {each.end}) does not fit into a text of "
                f"{len(text)} characters"
            )
        if not text[each.start : each.end].strip():
            raise ValueError(f"passage {number} ({each.start} to {each.end}) holds only spaces")
    if overlap:
        return
    ordered = sorted(passages, key=lambda each: each.start)
    for before, after in pairwise(ordered):
        if after.start < before.end:
            raise ValueError(
                f"passages overlap: {before.start} to {before.end} and {after.start} to {after.end}"
            )
