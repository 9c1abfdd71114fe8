"""Inputs and options of the tasks that are answered token by token."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from registry.catalog.inputs import ImageInput, Inputs, Options

MAX_TOKENS = 32_768
MAX_STOPS = 16
MAX_STOP_CHARS = 256
MAX_PARTS = 256
MAX_IMAGES = 16
MAX_VARIABLES = 32

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


class ChatMessage(Inputs):
    """One turn of a conversation. For models that read images, its content may be parts."""

    role: Annotated[str, Field(min_length=1, max_length=40)]
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


class GenerationInputs(Inputs):
    """A conversation, which the model's chat template turns into a prompt, or the prompt itself.

    `images` are those of all messages, in the order of their places. With `suffix`, the text
    between prompt and suffix is generated. `variables` are for a prompt version
    (`registry.catalog.prompt`).
    """

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=512)] | None = None
    prompt: Annotated[str, Field(min_length=1, max_length=1_000_000)] | None = None
    images: list[ImageInput] = Field(default_factory=list, max_length=MAX_IMAGES)
    suffix: Annotated[str, Field(min_length=1, max_length=1_000_000)] | None = None
    variables: Variables | None = None

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("a request needs either messages or one prompt")
        places = sum(message.images for message in self.messages or ())
        if places != len(self.images):
            raise ValueError(f"the messages have {places} places for {len(self.images)} images")
        if self.suffix is not None and self.prompt is None:
            raise ValueError("a suffix needs a prompt")
        return self


class SamplingOptions(Options):
    """Settings of drawing tokens; the defaults are OpenAI's.

    `max_tokens` None stands for as many as are sensible. `reference` is a given answer whose
    likelihood is measured beside the generation, with that of the end of the answer if
    `reference_ends`; only evaluations set it. `stated` names the settings that the caller chose; a
    prompt version decides the others.
    """

    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 1.0
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    stop: list[StopText] = Field(default_factory=list, max_length=MAX_STOPS)
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    reference: Annotated[str, Field(max_length=1_000_000)] | None = None
    reference_ends: bool = True
    stated: list[Literal["max_tokens", "temperature", "top_p", "stop"]] = Field(
        default_factory=list, max_length=4
    )
