"""Rows and settings of text completion."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare

# A document is cut to measure its continuation: maximum of characters before the cut, and after it.
# Both are small enough for models with a short context.
PREFIX_CHARACTERS = 400
CONTINUATION_CHARACTERS = 200


class Document(BaseModel):
    """One text or program, which the model learns as a whole."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = Field(min_length=2, max_length=500_000)


class PretrainHyperparameters(BaseModel):
    """Settings of pretraining. Lengths are in tokens, and `max_steps` overrides `epochs`.

    A base without a tokenizer gets one with `vocabulary_size` tokens, learned from the data, and
    random weights. `fill_rate` is the share of texts that teach filling in the middle.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=3, ge=1, le=100)
    learning_rate: declare.LearningRate = 3e-3
    batch_size: int = Field(default=16, ge=1, le=512)
    gradient_accumulation: int = Field(default=1, ge=1, le=256)
    max_length: int = Field(default=256, ge=32, le=32_768)
    vocabulary_size: int = Field(default=2_048, ge=512, le=131_072)
    fill_rate: float = Field(default=0.5, ge=0, le=0.9)
    weight_decay: float = Field(default=0.1, ge=0, le=1)
    warmup_ratio: float = Field(default=0.05, ge=0, le=1)
    validation_fraction: float = Field(default=0.05, gt=0, lt=0.5)
    max_steps: int | None = Field(default=None, ge=1, le=1_000_000)
    seed: int = Field(default=17, ge=0, le=2**31 - 1)


def cut(text: str) -> tuple[str, str]:
    """Return the end of a document's first half, and the beginning of its second half.

    The document is cut at the end of a line if it has several, else in its middle; both parts have
    a maximum length.
    """
    middle = max(1, len(text) // 2)
    at = middle
    for end in _line_ends(text, middle):
        if text[:end].strip() and text[end:].strip():
            at = end
            break
    return text[max(0, at - PREFIX_CHARACTERS) : at], text[at : at + CONTINUATION_CHARACTERS]


def _line_ends(text: str, middle: int) -> list[int]:
    """Return the line end before `middle` and the one after it."""
    ends = [text.rfind("\n", 1, middle), text.find("\n", middle)]
    return [end for end in ends if 0 < end < len(text) - 1]


def first_line(text: str) -> str:
    """Return the first line that is not blank, without its line ending."""
    return next((line.rstrip() for line in text.splitlines() if line.strip()), "")
