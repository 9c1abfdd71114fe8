"""Operations of providers: kinds of endpoints, with the tasks that each can serve.

Loads neither Django nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, get_args

from governance.usage.units import Unit
from registry.catalog.declaration import GENERATION, Task


class WireShape(StrEnum):
    """Form of requests and answers that a provider understands."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"


WIRE_SHAPE_TITLES = {
    WireShape.OPENAI: "OpenAI",
    WireShape.ANTHROPIC: "Anthropic Messages",
    WireShape.GEMINI: "Gemini",
}


class Operation(StrEnum):
    """Provider endpoint that answers the requests to a hosted version."""

    CHAT = "chat"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"
    TRANSCRIPTION = "transcription"
    SPEECH = "speech"
    IMAGES = "images"


# Settings that a description may permit: fields of the task's inputs and options. Both `max_tokens`
# and `max_completion_tokens` permit a limit on tokens; providers differ in its name.
GenerationParameter = Literal[
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "choices",
    "logprobs",
    "logit_bias",
    "presence_penalty",
    "frequency_penalty",
    "json_schema",
    "tools",
    "images",
]
Parameter = Literal[
    GenerationParameter,
    "dimensions",
    "encoding_format",
    "language",
    "prompt",
    "segments",
    "translate",
    "speed",
    "instructions",
    "n",
    "size",
    "response_format",
]
PARAMETER_TITLES: dict[Parameter, str] = {
    "max_tokens": "Maximum tokens (max_tokens)",
    "max_completion_tokens": "Maximum tokens (max_completion_tokens)",
    "temperature": "Temperature",
    "top_p": "Top-p sampling",
    "stop": "Stop sequences",
    "seed": "Random seed",
    "choices": "Several answers to one prompt",
    "logprobs": "Log probabilities of tokens",
    "logit_bias": "Logit bias",
    "presence_penalty": "Presence penalty",
    "frequency_penalty": "Frequency penalty",
    "json_schema": "JSON schema for answers",
    "tools": "Tools",
    "images": "Images in prompts",
    "dimensions": "Shorter vectors (dimensions)",
    "encoding_format": "Vectors in base64 from the provider (encoding_format)",
    "language": "Language of recordings",
    "prompt": "Prompt for transcripts",
    "segments": "Times of segments (verbose_json)",
    "translate": "Translation of recordings into English",
    "speed": "Speed of speech",
    "instructions": "Instructions for speech",
    "n": "Several images for one prompt",
    "size": "Size of images",
    "response_format": "Images in the answer (response_format)",
}


@dataclass(frozen=True, slots=True)
class OperationRules:
    """Rules for descriptions of one operation.

    Attributes:
        title: Name for people.
        shapes: Wire shapes that have the operation.
        task: The only task that it serves; empty for all tasks that generate text.
        parameters: Settings that a description may permit.
        fields: Fields that only some operations have, and this one requires.
        unit: Unit in which its use is metered and priced.
    """

    title: str
    shapes: frozenset[WireShape]
    task: str
    parameters: frozenset[Parameter]
    fields: frozenset[str]
    unit: Unit = Unit.TOKENS


_OPENAI = frozenset({WireShape.OPENAI})
OPERATIONS = {
    Operation.CHAT: OperationRules(
        "Chat completions, messages or generateContent",
        frozenset(WireShape),
        "",
        frozenset(get_args(GenerationParameter)),
        frozenset({"context_tokens", "max_tokens"}),
    ),
    Operation.RESPONSES: OperationRules(
        "Responses",
        _OPENAI,
        "",
        frozenset(
            {"max_tokens", "temperature", "top_p", "logprobs", "json_schema", "tools", "images"}
        ),
        frozenset({"context_tokens", "max_tokens"}),
    ),
    Operation.EMBEDDINGS: OperationRules(
        "Embeddings",
        frozenset({WireShape.OPENAI, WireShape.GEMINI}),
        "embeddings",
        frozenset({"dimensions", "encoding_format"}),
        frozenset({"context_tokens", "dimensions", "max_inputs"}),
    ),
    Operation.TRANSCRIPTION: OperationRules(
        "Transcription",
        _OPENAI,
        "automatic-speech-recognition",
        frozenset({"language", "prompt", "temperature", "segments", "translate"}),
        frozenset(),
        Unit.AUDIO_SECONDS,
    ),
    Operation.SPEECH: OperationRules(
        "Speech",
        _OPENAI,
        "text-to-speech",
        frozenset({"speed", "instructions"}),
        frozenset({"voices"}),
        Unit.CHARACTERS,
    ),
    Operation.IMAGES: OperationRules(
        "Images",
        _OPENAI,
        "text-to-image",
        frozenset({"n", "size", "seed", "response_format"}),
        frozenset(),
        Unit.IMAGES,
    ),
}
# Fields of a description that only some operations have.
OWN_FIELDS = frozenset().union(*(rules.fields for rules in OPERATIONS.values()))


def operations_for(task: Task) -> list[Operation]:
    """Return the operations that can answer for a task; empty if no provider can."""
    return [
        name
        for name, rules in OPERATIONS.items()
        if (rules.task == task.name if rules.task else task.engine == GENERATION)
    ]
