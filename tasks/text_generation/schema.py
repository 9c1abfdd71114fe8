"""Rows and settings of text generation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from assay.plugins import declare


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1, max_length=100_000)


class Conversation(BaseModel):
    """One conversation; its last message is the answer to learn."""

    model_config = ConfigDict(extra="forbid", strict=True)

    messages: list[Message] = Field(min_length=2, max_length=100)

    @model_validator(mode="after")
    def _ends_with_the_answer(self) -> Conversation:
        if self.messages[-1].role != "assistant":
            raise ValueError("the last message must be the assistant's")
        return self


class PreferencePair(BaseModel):
    """A better and a worse answer to one prompt, or to one conversation."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: str | None = Field(default=None, min_length=1, max_length=100_000)
    messages: list[Message] | None = Field(default=None, min_length=1, max_length=100)
    chosen: str = Field(min_length=1, max_length=100_000)
    rejected: str = Field(min_length=1, max_length=100_000)

    @model_validator(mode="after")
    def _one_question_two_answers(self) -> PreferencePair:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        if self.messages is not None and self.messages[-1].role == "assistant":
            raise ValueError("the last message must not be the assistant's")
        if self.chosen == self.rejected:
            raise ValueError("chosen and rejected must differ")
        return self


def prompt_text(row: dict[str, Any]) -> str:
    """Return the conversation before the answer to learn."""
    return _as_text(row["messages"][:-1])


def preference_messages(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the conversation that both answers follow."""
    if row.get("messages"):
        return list(row["messages"])
    return [{"role": "user", "content": row["prompt"]}]


def preference_prompt(row: dict[str, Any]) -> str:
    """Return the prompt of both answers, in the form of `prompt_text`."""
    return _as_text(preference_messages(row))


def _as_text(turns: list[dict[str, Any]]) -> str:
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


class TuningSettings(BaseModel):
    """Settings of tuning on a frozen base. `learning_rate` is the peak rate; lengths are in tokens;
    `max_steps` overrides `epochs`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=2, ge=1, le=50)
    learning_rate: declare.LearningRate = 2e-4
    batch_size: int = Field(default=8, ge=1, le=512)
    gradient_accumulation: int = Field(default=1, ge=1, le=256)
    max_length: int = Field(default=256, ge=16, le=32_768)
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    warmup_ratio: float = Field(default=0.05, ge=0, le=1)
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.5)
    max_steps: int | None = Field(default=None, ge=1, le=1_000_000)
    seed: int = Field(default=17, ge=0, le=2**31 - 1)


class AdapterSettings(declare.LoraSettings, TuningSettings):
    """Settings of tuning an adapter."""


class LoraHyperparameters(AdapterSettings):
    """Settings of tuning on example answers."""


class DpoHyperparameters(AdapterSettings):
    """Settings of tuning on preferences. A larger `beta` keeps the model closer to its base."""

    epochs: int = Field(default=1, ge=1, le=50)
    learning_rate: declare.LearningRate = 5e-5
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    beta: float = Field(default=0.1, gt=0, le=10)


class PromptTuningHyperparameters(TuningSettings):
    """Settings of tuning a soft prompt of `virtual_tokens` embeddings."""

    epochs: int = Field(default=4, ge=1, le=50)
    learning_rate: float = Field(default=0.01, gt=0, le=1)
    virtual_tokens: int = Field(default=20, ge=1, le=256)


def feedback_row(inputs: declare.GenerationInputs, answer: str) -> dict[str, Any]:
    """Return the conversation that teaches the answer. A prompt becomes one message of the user.

    Raises:
        ValueError: the request contains images.
    """
    if inputs.images:
        raise ValueError("the request contains images")
    turns = [{"role": turn.role, "content": turn.text} for turn in inputs.messages or ()]
    turns = turns or [{"role": "user", "content": str(inputs.prompt)}]
    return {"messages": [*turns, {"role": "assistant", "content": answer}]}
