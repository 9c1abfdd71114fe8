"""Truncate inputs over a model's maximum length, by the parameters of each API convention.

Without such a parameter the request is rejected. Loads neither Django nor torch.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, model_validator

from registry.catalog.endpoints import Answer
from registry.catalog.inputs import Truncate
from registry.catalog.requests import Strict

# Cohere's values, for embeddings, reranking and classification.
CohereTruncate = Literal["NONE", "START", "END"]
# Values of Hugging Face's pipelines; an input has one text that may be cut.
Truncation = Literal["do_not_truncate", "longest_first", "only_first"]


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class TruncatedRequest(Strict):
    """Request that cuts inputs over the model's maximum length if `truncate`, on the side in
    `truncation_direction`, as in Hugging Face's Text Embeddings Inference (TEI).
    """

    truncate: bool | None = None
    # TEI's clients send them capitalized.
    truncation_direction: Annotated[Literal["left", "right"], BeforeValidator(_lower)] | None = None

    @model_validator(mode="after")
    def _has_direction_of_something(self) -> Self:
        if self.truncation_direction is not None and not self.truncate:
            raise ValueError("truncation_direction requires truncate: true")
        return self

    @property
    def side(self) -> Truncate:
        """Return the side that is cut off."""
        if not self.truncate:
            return "none"
        return "start" if self.truncation_direction == "left" else "end"


def cohere_side(truncate: CohereTruncate | None) -> Truncate:
    """Return the side that is cut off for Cohere's value."""
    sides: dict[CohereTruncate, Truncate] = {"NONE": "none", "START": "start", "END": "end"}
    return sides[truncate or "NONE"]


def pipeline_side(truncation: Truncation | None) -> Truncate:
    """Return the side that is cut off for a value of Hugging Face's pipelines."""
    return "none" if truncation in (None, "do_not_truncate") else "end"


def cut_counts(answer: Answer) -> dict[str, int]:
    """Return the amounts cut off, as fields of an answer; empty if nothing was cut."""
    if not answer.cut_inputs:
        return {}
    return {"truncated_inputs": answer.cut_inputs, "truncated_tokens": answer.cut_tokens}


def cohere_warnings(answer: Answer) -> dict[str, list[str]]:
    """Return the warnings in Cohere's `meta` about cut inputs; empty if nothing was cut."""
    if not answer.cut_inputs:
        return {}
    noun = "input was" if answer.cut_inputs == 1 else "inputs were"
    subject = f"{answer.cut_inputs} {noun} longer than the model reads"
    return {"warnings": [f"{subject} and lost {answer.cut_tokens} tokens."]}
