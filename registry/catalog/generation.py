"""Inputs and options of the tasks that are answered token by token."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from registry.catalog.grounding import MAX_PASSAGES
from registry.catalog.inputs import ImageInput, Inputs, Options
from registry.catalog.json_bounds import bounded_json, bounded_schema

MAX_TOKENS = 32_768
MAX_STOPS = 16
MAX_STOP_CHARS = 256
MAX_PARTS = 256
MAX_IMAGES = 16
MAX_VARIABLES = 32
MAX_TOOLS = 64
MAX_CALLS = 64
MAX_PROMPTS = 64
MAX_TOKEN = 2**31 - 1
MAX_BIASES = 300
# Choices of one prompt, and those of all prompts together.
MAX_N = 16
MAX_CHOICES = 128
MAX_TOP_LOGPROBS = 20

JsonObject = Annotated[dict[str, Any], AfterValidator(bounded_json)]
JsonSchema = Annotated[dict[str, Any], AfterValidator(bounded_schema)]
FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,39}$")]
# Values of a prompt version's variables, by name.
Variables = Annotated[
    dict[VariableName, Annotated[str, Field(max_length=20_000)]], Field(max_length=MAX_VARIABLES)
]


class TextPart(Inputs):
    """A text among the parts of a message."""

    type: Literal["text"]
    text: Annotated[str, Field(max_length=1_000_000)]


class ImagePart(Inputs):
    """The place of the next of the request's images."""

    type: Literal["image"]


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Tool(Inputs):
    """A function that the model may call. `parameters` is the JSON schema of its arguments.

    With `strict`, the arguments always fit the schema.
    """

    name: FunctionName
    description: Annotated[str, Field(max_length=8_192)] = ""
    parameters: JsonSchema = Field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool = False


class ToolCall(Inputs):
    """A call that the model has made before."""

    id: Annotated[str, Field(min_length=1, max_length=200)]
    name: FunctionName
    arguments: JsonObject


class ChatMessage(Inputs):
    """One turn of a conversation. For models that read images, its content may be parts.

    An assistant's turn may hold `tool_calls`; the turn with the role `tool` that answers one names
    it by `tool_call_id`.
    """

    role: Annotated[str, Field(min_length=1, max_length=40)]
    tool_calls: list[ToolCall] = Field(default_factory=list, max_length=MAX_CALLS)
    tool_call_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    content: (
        Annotated[str, Field(max_length=1_000_000)]
        | Annotated[list[Part], Field(min_length=1, max_length=MAX_PARTS)]
    )

    @property
    def text(self) -> str:
        """Return the message without its images."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if part.type == "text")

    @property
    def images(self) -> int:
        """Return how many images the message holds."""
        if isinstance(self.content, str):
            return 0
        return sum(part.type == "image" for part in self.content)


PromptText = Annotated[str, Field(min_length=1, max_length=1_000_000)]
PromptTokens = Annotated[
    list[Annotated[int, Field(ge=0, le=MAX_TOKEN)]], Field(min_length=1, max_length=200_000)
]


class GenerationInputs(Inputs):
    """A conversation, which the model's chat template turns into a prompt, or the prompt itself.

    `images` are those of all messages, in the order of their places. With `suffix`, the text
    between prompt and suffix is generated. `prompts` are several prompts, as text or as tokens;
    each has choices of its own. `tools` are shown to the model by its chat template. `variables`
    are for a prompt version (`registry.catalog.prompt`), which takes them away and sets
    `own_texts`: its texts, as often as they stand in the messages. Then nothing else in the
    messages may hold a control token of the model. `passages` are texts in the messages that come
    from documents, and may hold none in any case.
    """

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=512)] | None = None
    prompt: PromptText | None = None
    prompts: (
        Annotated[
            list[PromptText] | list[PromptTokens], Field(min_length=1, max_length=MAX_PROMPTS)
        ]
        | None
    ) = None
    tools: list[Tool] = Field(default_factory=list, max_length=MAX_TOOLS)
    images: list[ImageInput] = Field(default_factory=list, max_length=MAX_IMAGES)
    suffix: Annotated[str, Field(min_length=1, max_length=1_000_000)] | None = None
    variables: Variables | None = None
    own_texts: list[str] | None = None
    passages: list[str] = Field(default_factory=list, max_length=MAX_PASSAGES)

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        given = (self.messages, self.prompt, self.prompts)
        if sum(each is not None for each in given) != 1:
            raise ValueError("a request needs either messages or one prompt")
        if self.tools and self.messages is None:
            raise ValueError("tools need messages")
        if len({tool.name for tool in self.tools}) < len(self.tools):
            raise ValueError("two tools have the same name")
        places = sum(message.images for message in self.messages or ())
        if places != len(self.images):
            raise ValueError(f"the messages have {places} places for {len(self.images)} images")
        if self.suffix is not None and self.prompt is None:
            raise ValueError("a suffix needs a prompt")
        return self


class SamplingOptions(Options):
    """Settings of drawing tokens; the defaults are OpenAI's.

    Args:
        max_tokens: None stands for as many as are sensible; 0 generates nothing.
        choices: Answers to each prompt. `best_of` more are made, and the likeliest are kept.
        logprobs: Each token's probability is stated, and so many of the likeliest in its place.
        echo: The answer begins with the prompt.
        logit_bias: Added to a token's logit; keys are tokens as decimal numbers.
        json_schema: The answer is JSON that fits this schema.
        tool_choice: "required" makes the answer a call of one of the tools, or of `tool_name`.
        parallel_tool_calls: The answer may hold several calls.
        reference: A given answer whose likelihood is measured in addition to the generation, with
            that of the end of the answer if `reference_ends`; only evaluations set it.
        name_stop: The end of the answer names the stop text that ended it.
        stated: Names of the settings that the caller chose; a prompt version decides the others.
    """

    max_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 1.0
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    stop: list[StopText] = Field(default_factory=list, max_length=MAX_STOPS)
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    choices: Annotated[int, Field(ge=1, le=MAX_N)] = 1
    best_of: Annotated[int, Field(ge=1, le=MAX_N)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    echo: bool = False
    logit_bias: dict[
        Annotated[str, Field(pattern=r"^[0-9]{1,9}$")],
        Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)],
    ] = Field(default_factory=dict, max_length=MAX_BIASES)
    presence_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] = 0.0
    json_schema: JsonSchema | None = None
    tool_choice: Literal["auto", "required"] = "auto"
    tool_name: FunctionName | None = None
    parallel_tool_calls: bool = True
    reference: Annotated[str, Field(max_length=1_000_000)] | None = None
    reference_ends: bool = True
    name_stop: bool = False
    stated: list[Literal["max_tokens", "temperature", "top_p", "stop"]] = Field(
        default_factory=list, max_length=4
    )

    @property
    def made(self) -> int:
        """Return how many answers are generated for each prompt."""
        return self.best_of or self.choices
