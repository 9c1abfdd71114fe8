"""Treatment of inputs that a model cannot read whole, in the words of each convention.

Without one of these words such a request is refused. Loads neither Django nor torch.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from registry.catalog.endpoints import Answer
from registry.catalog.inputs import Truncate
from registry.catalog.requests import Strict

# Cohere's, for embeddings, reranking and classification.
CohereTruncate = Literal["NONE", "START", "END"]
# Those of Hugging Face's pipelines; an input has one text that may be cut.
Truncation = Literal["do_not_truncate", "longest_first", "only_first"]


class TruncatedRequest(Strict):
    """`truncate` cuts inputs that are longer than the model reads, on the side that
    `truncation_direction` names; as Hugging Face's server of embeddings (TEI) has it.
    """

    truncate: bool | None = None
    truncation_direction: Literal["left", "right", "Left", "Right"] | None = None

    @model_validator(mode="after")
    def _has_direction_of_something(self) -> Self:
        if self.truncation_direction is not None and not self.truncate:
            raise ValueError("truncation_direction goes with truncate: true")
        return self

    @property
    def side(self) -> Truncate:
        """Return the side that is cut off."""
        if not self.truncate:
            return "none"
        return "start" if (self.truncation_direction or "").lower() == "left" else "end"


def cohere_side(truncate: CohereTruncate | None) -> Truncate:
    """Return the side that is cut off, by Cohere's word."""
    sides: dict[CohereTruncate, Truncate] = {"NONE": "none", "START": "start", "END": "end"}
    return sides[truncate or "NONE"]


def pipeline_side(truncation: Truncation | None) -> Truncate:
    """Return the side that is cut off, by the word of Hugging Face's pipelines."""
    return "none" if truncation in (None, "do_not_truncate") else "end"


def cut_counts(answer: Answer) -> dict[str, int]:
    """Return how much was cut off, as fields of an answer; nothing where nothing was."""
    if not answer.cut_inputs:
        return {}
    return {"truncated_inputs": answer.cut_inputs, "truncated_tokens": answer.cut_tokens}


def cohere_warnings(answer: Answer) -> dict[str, list[str]]:
    """Return the part of Cohere's `meta` that tells what was cut off; nothing where nothing was."""
    if not answer.cut_inputs:
        return {}
    noun = "input was" if answer.cut_inputs == 1 else "inputs were"
    told = f"{answer.cut_inputs} {noun} longer than the model reads"
    return {"warnings": [f"{told} and lost {answer.cut_tokens} tokens."]}
