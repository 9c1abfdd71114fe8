"""Inputs and options of tasks whose answers are generated token by token."""

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
# Maximum choices of one prompt, and of all prompts of a request together.
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
    """Place of the next image in the request's `images`."""

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
    """An earlier call by the model."""

    id: Annotated[str, Field(min_length=1, max_length=200)]
    name: FunctionName
    arguments: JsonObject


class ChatMessage(Inputs):
    """One turn of a conversation. For models that read images, its content may be parts.

    An assistant's turn may hold `tool_calls`; a turn with the role `tool` answers the call that
    `tool_call_id` names.
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
        """Return the number of images in the message."""
        if isinstance(self.content, str):
            return 0
        return sum(part.type == "image" for part in self.content)


PromptText = Annotated[str, Field(min_length=1, max_length=1_000_000)]
PromptTokens = Annotated[
    list[Annotated[int, Field(ge=0, le=MAX_TOKEN)]], Field(min_length=1, max_length=200_000)
]


class GenerationInputs(Inputs):
    """A conversation, which the model's chat template turns into a prompt, or the prompt itself.

    `images` are the images of all messages, in the order of their places. With `suffix`, the answer
    is the text between prompt and suffix. `prompts` are several prompts, as text or as tokens; each
    has its own choices. The chat template passes `tools` to the model. `variables` are for a prompt
    version (`registry.catalog.prompt`), which removes them and sets `own_texts`: each of its texts,
    once for each occurrence in the messages. Then the rest of the messages must not contain the
    model's control tokens. `passages` are texts in the messages that come from documents; they must
    never contain control tokens.
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
        sources = (self.messages, self.prompt, self.prompts)
        if sum(each is not None for each in sources) != 1:
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
    """Settings of sampling; the defaults are OpenAI's.

    Args:
        max_tokens: Maximum length; None for a sensible default, 0 for no answer.
        choices: Answers to each prompt: the likeliest of `best_of` generated answers.
        logprobs: Return each token's log probability, and this many likeliest alternatives.
        echo: Begin the answer with the prompt.
        logit_bias: Added to a token's logit; keys are tokens as decimal numbers.
        json_schema: Schema of an answer in JSON.
        tool_choice: "required" makes the answer a call of one of the tools, or of `tool_name`.
        parallel_tool_calls: Allow several calls in the answer.
        reference: An answer whose likelihood is measured in addition to the generation, with the
            likelihood of its end if `reference_ends`; only evaluations set it.
        name_stop: Return the stop text that ended the answer.
        stated: Names of the settings that the caller chose; a prompt version may set the others.
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
        """Return the number of answers that are generated for each prompt."""
        return self.best_of or self.choices
