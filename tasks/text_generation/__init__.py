"""Text generation: a causal language model that answers messages, fine-tuned by LoRA."""

from __future__ import annotations

from typing import Any

from assay.plugins import declare
from tasks.text_generation.chat import ChatRequest, read_chat
from tasks.text_generation.completions import CompletionRequest, read_completion
from tasks.text_generation.hugging_face import TextGenerationRequest, read_text_generation
from tasks.text_generation.input_tokens import InputTokensRequest, read_input_tokens
from tasks.text_generation.messages import (
    CountRequest,
    MessagesRequest,
    read_count,
    read_messages,
)
from tasks.text_generation.responses import ResponsesRequest, read_responses
from tasks.text_generation.schema import (
    Conversation,
    DpoHyperparameters,
    LoraHyperparameters,
    PreferencePair,
    PromptTuningHyperparameters,
    feedback_row,
    preference_prompt,
    prompt_text,
)

# Enough for the answers of most test sets; longer answers are cut, for every version alike.
ANSWER_TOKENS = 64


def evaluation_request(
    row: dict[str, Any],
) -> tuple[declare.GenerationInputs, declare.SamplingOptions]:
    """Return the request for a greedy answer to the conversation, and for its likelihood."""
    *messages, answer = row["messages"]
    return (
        declare.GenerationInputs.model_validate({"messages": messages}),
        declare.SamplingOptions(
            max_tokens=ANSWER_TOKENS, temperature=0.0, reference=answer["content"]
        ),
    )


TASK = declare.Task(
    interface=1,
    name="text-generation",
    title="Text generation",
    description="Continues a conversation, token by token.",
    modality="text",
    inputs=(declare.Modality.MESSAGES,),
    outputs=(declare.Modality.TEXT,),
    architectures=(
        "LlamaForCausalLM",
        "MistralForCausalLM",
        "Qwen2ForCausalLM",
        "Qwen3ForCausalLM",
        "SmolLM3ForCausalLM",
    ),
    engine=declare.GENERATION,
    unit=declare.Unit.TOKENS,
    input_schema=declare.GenerationInputs,
    option_schema=declare.SamplingOptions,
    endpoints=(
        declare.Endpoint(
            "/v1/chat/completions",
            read_chat,
            request=ChatRequest,
            summary="OpenAI's shape: the next message of a chat, with tools and JSON by schema.",
        ),
        declare.Endpoint(
            "/v1/completions",
            read_completion,
            request=CompletionRequest,
            summary="OpenAI's older shape: the continuation of each prompt, with probabilities.",
        ),
        declare.Endpoint(
            "/v1/responses",
            read_responses,
            request=ResponsesRequest,
            summary="OpenAI's newer shape, for text and functions; whole or streamed.",
        ),
        declare.Endpoint(
            "/v1/responses/input_tokens",
            read_input_tokens,
            request=InputTokensRequest,
            summary="OpenAI's shape: the number of tokens of an input; costs no tokens.",
        ),
        declare.Endpoint(
            "/v1/messages",
            read_messages,
            request=MessagesRequest,
            summary="Anthropic's shape: the next message of a chat, with tools; whole or streamed.",
        ),
        declare.Endpoint(
            "/v1/messages/count_tokens",
            read_count,
            request=CountRequest,
            summary="Anthropic's shape: the number of tokens of a chat; costs no tokens.",
        ),
        declare.Endpoint(
            "/v1/tasks/text-generation",
            read_text_generation,
            named=True,
            request=TextGenerationRequest,
            summary="Hugging Face's shape: `[{generated_text}]`, or TGI's events.",
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
    playground=declare.Playground(
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
    other_rows=(
        declare.RowKind(
            name="preferences",
            title="preference pairs",
            row=PreferencePair,
            row_input=preference_prompt,
            examples=(
                {
                    "prompt": "Write the docstring of: def add(a, b): return a + b",
                    "chosen": "Return the sum of two numbers.",
                    "rejected": "This function adds things together and it is very useful.",
                },
                {
                    "messages": [
                        {"role": "system", "content": "You write one-line docstrings."},
                        {"role": "user", "content": "def half(x): return x / 2"},
                    ],
                    "chosen": "Return half of a number.",
                    "rejected": "half",
                },
            ),
        ),
    ),
    recipes=(
        declare.Recipe(
            method="lora",
            title="LoRA",
            makes="adapter",
            train="tasks.text_generation.lora:train",
            hyperparameters=LoraHyperparameters,
            distributed=True,
        ),
        declare.Recipe(
            method="dpo",
            title="LoRA on preferences (DPO)",
            makes="adapter",
            train="tasks.text_generation.dpo:train",
            hyperparameters=DpoHyperparameters,
            row_kind="preferences",
        ),
        declare.Recipe(
            method="prompt-tuning",
            title="Soft prompt (prompt tuning)",
            makes="adapter",
            train="tasks.text_generation.prompt_tuning:train",
            hyperparameters=PromptTuningHyperparameters,
        ),
    ),
    evaluation=declare.Evaluation(
        request=evaluation_request,
        score="tasks.text_generation.score:score",
        metrics=(
            declare.Metric("perplexity", "Perplexity", higher_is_better=False, likelihood=True),
            declare.Metric("chrf", "chrF"),
        ),
        primary_metric="perplexity",
    ),
    feedback_row=feedback_row,
)
