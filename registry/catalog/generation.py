"""Inputs and options of the tasks that are answered token by token."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from registry.catalog.inputs import Inputs, Options

MAX_TOKENS = 32_768
MAX_STOPS = 16
MAX_STOP_CHARS = 256

StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]


class ChatMessage(Inputs):
    """One turn of a conversation."""

    role: Annotated[str, Field(min_length=1, max_length=40)]
    content: Annotated[str, Field(max_length=1_000_000)]


class GenerationInputs(Inputs):
    """A conversation, which the model's chat template turns into a prompt, or the prompt itself."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=512)] | None = None
    prompt: Annotated[str, Field(min_length=1, max_length=1_000_000)] | None = None

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("a request needs either messages or one prompt")
        return self


class SamplingOptions(Options):
    """How tokens are drawn; the defaults are OpenAI's.

    `max_tokens` None stands for as many as are sensible. `reference` is a given answer whose
    likelihood is measured beside the generation; only evaluations set it.
    """

    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 1.0
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    stop: list[StopText] = Field(default_factory=list, max_length=MAX_STOPS)
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    reference: Annotated[str, Field(max_length=1_000_000)] | None = None
