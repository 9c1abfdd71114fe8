"""Text completion: a causal language model that continues a text or program, or fills a gap in it;
pretrained from a configuration."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from assay.plugins import declare
from tasks.text_completion.schema import Document, PretrainHyperparameters, cut
from tasks.text_generation.completions import CompletionRequest, read_completion

# Enough for most lines of a program or of prose.
LINE_TOKENS = 24


def evaluation_request(
    row: dict[str, Any],
) -> tuple[declare.GenerationInputs, declare.SamplingOptions]:
    """Return the request for a document's next line, and the likelihood of its continuation."""
    prefix, continuation = cut(row["text"])
    return (
        declare.GenerationInputs(prompt=prefix),
        declare.SamplingOptions(
            max_tokens=LINE_TOKENS,
            temperature=0.0,
            reference=continuation,
            reference_ends=False,
        ),
    )


def feedback_row(inputs: declare.GenerationInputs, answer: str) -> dict[str, Any]:
    """Return the document that teaches the answer as the continuation of the prompt.

    Raises:
        ValueError: the request has messages or a suffix.
    """
    if inputs.prompt is None or inputs.suffix is not None:
        raise ValueError("the request is more than a prompt")
    return {"text": inputs.prompt + answer}


TASK = declare.Task(
    interface=1,
    name="text-completion",
    title="Text and code completion",
    description="Continues a text or program, or fills a gap in it.",
    modality="text",
    inputs=(declare.Modality.TEXT,),
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
    endpoints=(declare.Endpoint("/v1/completions", read_completion, request=CompletionRequest),),
    sample={
        "prompt": "def add(a, b):\n    return",
        "suffix": "\n\n\ndef subtract(a, b):\n    return a - b\n",
        "max_tokens": 16,
        "temperature": 0,
    },
    playground=declare.Playground(
        body={"model": "$model", "prompt": "$text", "max_tokens": 32, "temperature": 0},
        text="def __len__(self):\n    return",
    ),
    row=Document,
    row_input=itemgetter("text"),
    examples=(
        {"text": "def add(a, b):\n    return a + b\n"},
        {"text": "def half(x):\n    return x / 2\n"},
    ),
    recipes=(
        declare.Recipe(
            method="pretrain",
            title="Pretraining",
            makes="full",
            train="tasks.text_completion.pretrain:train",
            hyperparameters=PretrainHyperparameters,
        ),
    ),
    evaluation=declare.Evaluation(
        request=evaluation_request,
        score="tasks.text_completion.score:score",
        metrics=(
            declare.Metric("bits_per_byte", "Bits per byte", higher_is_better=False),
            declare.Metric("exact_match", "Next line exactly right", proportion=True),
            declare.Metric("perplexity", "Perplexity", higher_is_better=False),
        ),
        primary_metric="bits_per_byte",
        uses_training_rows=True,
    ),
    feedback_row=feedback_row,
)
