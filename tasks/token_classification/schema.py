"""Rows, inputs, options and results of token classification. Loads neither torch nor Django."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import TypedDict

from assay.plugins import declare

MAX_CHARACTERS = 100_000

Strategy = Literal["none", "simple", "first", "average", "max"]
IgnoredLabels = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=100)]], Field(max_length=1_000)
]


class LabeledSpans(BaseModel):
    """A text and its labeled passages, which do not overlap."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = Field(min_length=1, max_length=MAX_CHARACTERS)
    spans: declare.Spans

    @model_validator(mode="after")
    def _check_spans(self) -> LabeledSpans:
        declare.check_passages(self.text, self.spans)
        return self


class TokenInputs(declare.Inputs):
    """One text."""

    text: str = Field(min_length=1, max_length=MAX_CHARACTERS)


class TokenOptions(declare.Options):
    """`aggregation_strategy` joins tokens into passages as transformers does; `none` joins none."""

    aggregation_strategy: Strategy = "simple"
    ignore_labels: IgnoredLabels = Field(default=["O"])


class Entity(TypedDict):
    """A passage with its label in `entity_group`, or one token with its label in `entity`."""

    entity_group: NotRequired[str]
    entity: NotRequired[str]
    index: NotRequired[int]
    score: float
    word: str
    start: int
    end: int


def row_input(row: dict[str, Any]) -> str:
    """Return the text."""
    return str(row["text"])


def evaluation_request(row: dict[str, Any]) -> tuple[TokenInputs, TokenOptions]:
    """Return the request that finds the row's passages."""
    return TokenInputs(text=row["text"]), TokenOptions()
