"""Types of text to speech: dataset rows, inputs and options. A result is a recording."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from assay.plugins import declare

# Bounds of OpenAI's API.
MAX_CHARACTERS = 4_096
SpokenText = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS, pattern=r"\S")]
Voice = Annotated[str, Field(min_length=1, max_length=100)]
# On the way in which to speak.
Instructions = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS)]
Speed = Annotated[float, Field(ge=0.25, le=4.0)]
# Formats that libsndfile writes. For `pcm`, the endpoint extracts the samples of a WAV file.
AudioFormat = Literal["wav", "flac", "mp3", "opus"]


class Sentence(BaseModel):
    """One text to speak."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: SpokenText


class SpeechInputs(declare.Inputs):
    """One text. The default `voice` is the model's first one."""

    text: SpokenText
    voice: Voice | None = None


class SpeechOptions(declare.Options):
    """`speed` 1 is the model's own speed; `format` is the format of the recording. Only models of
    providers may follow `instructions`."""

    speed: Speed = 1.0
    format: AudioFormat = "wav"
    instructions: Instructions | None = None
