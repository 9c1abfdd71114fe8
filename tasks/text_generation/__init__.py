"""Text generation: a causal language model that answers messages, fine-tuned by LoRA."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from registry.catalog.declaration import (
    GENERATION,
    Evaluation,
    Metric,
    Modality,
    Playground,
    Recipe,
    Task,
    Unit,
)
from registry.catalog.endpoints import Endpoint
from registry.catalog.generation import GenerationInputs, SamplingOptions
from tasks.text_generation.endpoints import (
    ChatRequest,
    CompletionRequest,
    read_chat,
    read_completion,
)


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


class LoraHyperparameters(BaseModel):
    """Settings of LoRA. `learning_rate` is the peak; lengths are in tokens; `max_steps` overrides
    `epochs`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=2, ge=1, le=50)
    learning_rate: float = Field(default=2e-4, gt=0, le=0.1)
    batch_size: int = Field(default=8, ge=1, le=512)
    gradient_accumulation: int = Field(default=1, ge=1, le=256)
    max_length: int = Field(default=256, ge=16, le=32_768)
    weight_decay: float = Field(default=0.0, ge=0, le=1)
    warmup_ratio: float = Field(default=0.05, ge=0, le=1)
    validation_fraction: float = Field(default=0.1, gt=0, lt=0.5)
    lora_rank: int = Field(default=8, ge=1, le=256)
    lora_alpha: int = Field(default=16, ge=1, le=1024)
    lora_dropout: float = Field(default=0.05, ge=0, lt=1)
    max_steps: int | None = Field(default=None, ge=1, le=1_000_000)
    seed: int = Field(default=17, ge=0, le=2**31 - 1)


# Enough for the answers of most test sets; a longer answer is cut there for every version alike.
ANSWER_TOKENS = 64


def prompt_text(row: dict[str, Any]) -> str:
    """Return everything before the answer that is to be learned."""
    turns = row["messages"][:-1]
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def evaluation_request(row: dict[str, Any]) -> tuple[GenerationInputs, SamplingOptions]:
    """Return the request for a greedy answer to the conversation, and its likelihood."""
    *asked, answer = row["messages"]
    return (
        GenerationInputs.model_validate({"messages": asked}),
        SamplingOptions(max_tokens=ANSWER_TOKENS, temperature=0.0, reference=answer["content"]),
    )


TASK = Task(
    name="text-generation",
    title="Text generation",
    description="Continues a conversation, token by token.",
    modality="text",
    inputs=(Modality.MESSAGES,),
    outputs=(Modality.TEXT,),
    architectures=(
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
        "SmolLM3ForCausalLM",
    ),
    engine=GENERATION,
    unit=Unit.TOKENS,
    input_schema=GenerationInputs,
    option_schema=SamplingOptions,
    endpoints=(
        Endpoint(
            "/v1/chat/completions",
            read_chat,
            request=ChatRequest,
            summary="OpenAI's shape: the next message of a conversation, whole or streamed.",
        ),
        Endpoint(
            "/v1/completions",
            read_completion,
            request=CompletionRequest,
            summary="OpenAI's older shape: the continuation of one prompt, whole or streamed.",
        ),
    ),
    sample={
        "messages": [
            {
                "role": "user",
                "content": "Write the one-line docstring.\n\ndef add(a, b):\n    return a + b",
            }
        ],
        "max_tokens": 48,
    },
    playground=Playground(
        body={"model": "$model", "messages": "$messages"},
        text="Write the one-line docstring.\n\ndef add(a, b):\n    return a + b",
    ),
    row=Conversation,
    row_input=prompt_text,
    examples=(
        {
            "messages": [
                {"role": "user", "content": "Write the docstring of: def add(a, b): return a + b"},
                {"role": "assistant", "content": "Return the sum of two numbers."},
            ]
        },
        {
            "messages": [
                {"role": "system", "content": "You write one-line docstrings."},
                {"role": "user", "content": "def half(x): return x / 2"},
                {"role": "assistant", "content": "Return half of a number."},
            ]
        },
    ),
    recipes=(
        Recipe(
            method="lora",
            title="LoRA",
            makes="adapter",
            train="tasks.text_generation.lora:train",
            hyperparameters=LoraHyperparameters,
        ),
    ),
    evaluation=Evaluation(
        request=evaluation_request,
        score="tasks.text_generation.score:score",
        metrics=(
            Metric("perplexity", "Perplexity", higher_is_better=False),
            Metric("chrf", "chrF"),
        ),
        primary_metric="perplexity",
    ),
)
