"""Typed inputs and options of one inference request, shared by gateway and worker.

An endpoint builds them from a body, they travel as JSON, and the worker validates them again before
a runner gets them. Loads neither Django nor torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

MediaKind = Literal["image", "audio", "video"]
MAX_TEXTS = 2_048
# A text in the inputs of a request.
TextInput = Annotated[str, Field(min_length=1, max_length=100_000)]
# A file for a runner: a binary stream while serving, a path during an evaluation.
Media = Path | IO[bytes]


class MediaInput:
    """Bytes of one media file in the inputs of a plan.

    The gateway checks the bytes, moves them to the media store and sends a reference instead.
    `param` names the request's field in errors.
    """

    # Not a dataclass: pydantic would dump it as a dictionary that includes the bytes.
    __slots__ = ("data", "kind", "param")

    def __init__(self, kind: MediaKind, data: bytes, param: str) -> None:
        self.kind: MediaKind = kind
        self.data = data
        self.param = param


def _file(value: Any) -> Any:
    if isinstance(value, (MediaInput, Path)) or hasattr(value, "read"):
        return value
    raise ValueError("must be a file")


_SCHEMA = WithJsonSchema({"type": "string", "format": "binary"})
# An image in the inputs of a request.
ImageInput = Annotated[Any, BeforeValidator(_file), _SCHEMA]
# A recording in the inputs of a request.
AudioInput = Annotated[Any, BeforeValidator(_file), _SCHEMA]
# A video in the inputs of a request.
VideoInput = Annotated[Any, BeforeValidator(_file), _SCHEMA]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def to_wire(self) -> dict[str, Any]:
        """Return the values that differ from the defaults, for JSON; media stay objects."""
        return self.model_dump(exclude_defaults=True)


class Inputs(_Part):
    """The inputs of a request.

    A subclass names the parts and their bounds; media have the types `ImageInput`,
    `AudioInput` and `VideoInput`.
    """


class OneImage(Inputs):
    """One image."""

    image: ImageInput


class OneRecording(Inputs):
    """One recording."""

    audio: AudioInput


class OneVideo(Inputs):
    """One video."""

    video: VideoInput


class Options(_Part):
    """Settings of a request. A subclass names them; each has a default."""

    def cutting(self) -> Self:
        """Return the settings that cut inputs over the model's length, if the task can: for
        evaluations, which count the cut inputs."""
        return self


class NoOptions(Options):
    """The options of a task that has none."""


# The side on which a text over the model's length loses tokens.
Truncate = Literal["none", "end", "start"]


class TextOptions(Options):
    """Settings of a task whose models read texts up to a maximum length.

    `truncate` is the side on which longer texts are cut; "none" rejects the request.
    """

    truncate: Truncate = "none"

    def cutting(self) -> Self:
        return self.model_copy(update={"truncate": "end"})


class TextInputs(Inputs):
    """One or more texts; each is a separate input."""

    input: Annotated[list[TextInput], Field(min_length=1, max_length=MAX_TEXTS)]

    @property
    def only(self) -> str:
        """Return the only text. Raises ValueError for several texts."""
        if len(self.input) != 1:
            raise ValueError(f"it has {len(self.input)} texts; send the one that it is about")
        return self.input[0]
