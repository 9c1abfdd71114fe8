"""Rows, inputs, options and results of zero-shot classification. Loads neither torch nor Django."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from assay.plugins import declare

MAX_CHARACTERS = 100_000
MAX_LABELS = 100
TEMPLATE = "This example is {}."

CandidateLabel = Annotated[str, Field(min_length=1, max_length=200)]
CandidateLabels = Annotated[list[CandidateLabel], Field(min_length=1, max_length=MAX_LABELS)]
Template = Annotated[str, Field(min_length=2, max_length=500, pattern=r"\{\}")]


class ChoiceOfLabels(BaseModel):
    """A text, the labels to choose from, and the right label."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = Field(min_length=1, max_length=MAX_CHARACTERS)
    candidate_labels: CandidateLabels
    label: str = Field(min_length=1, max_length=200)

    @model_validator(mode="after")
    def _check_label(self) -> ChoiceOfLabels:
        if len(set(self.candidate_labels)) != len(self.candidate_labels):
            raise ValueError("candidate_labels names a label twice")
        if self.label not in self.candidate_labels:
            raise ValueError(f"{self.label!r} is not among the candidate_labels")
        return self


class ZeroShotInputs(declare.Inputs):
    """One text and the labels to choose from."""

    text: str = Field(min_length=1, max_length=MAX_CHARACTERS)
    candidate_labels: CandidateLabels


class ZeroShotOptions(declare.TextOptions):
    """`hypothesis_template` turns each label into a sentence. With `multi_label` each label is
    judged separately, and the scores do not sum to 1."""

    hypothesis_template: Template = TEMPLATE
    multi_label: bool = False


def row_input(row: dict[str, Any]) -> str:
    """Return the text."""
    return str(row["text"])


def evaluation_request(row: dict[str, Any]) -> tuple[ZeroShotInputs, ZeroShotOptions]:
    """Return the request that chooses the row's label."""
    return (
        ZeroShotInputs(text=row["text"], candidate_labels=row["candidate_labels"]),
        ZeroShotOptions(),
    )


def feedback_row(inputs: ZeroShotInputs, answer: str) -> dict[str, Any]:
    """Return the row that teaches the label of a text."""
    return {
        "text": inputs.text,
        "candidate_labels": list(inputs.candidate_labels),
        "label": answer.strip(),
    }
