"""Types of speech recognition: dataset rows, inputs, options and results."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from assay.plugins import declare

Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]
Temperature = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
# Text before the transcript, which some models of providers continue.
Prompt = Annotated[str, Field(min_length=1, max_length=4_000)]


class Transcribed(BaseModel):
    """One recording and its text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    audio: declare.AudioFile
    text: str = Field(min_length=1, max_length=20_000)


class Recording(declare.Inputs):
    """One recording."""

    audio: declare.AudioInput


class SpeechOptions(declare.Options):
    """The language is detected if it is None; temperature 0 takes the likeliest token. With
    `translate` the text is in English, whatever the spoken language. `segments` requests the times
    of segments, which own models always state. Only models of providers may read a `prompt`."""

    language: Language | None = None
    temperature: Temperature = 0.0
    translate: bool = False
    segments: bool = False
    prompt: Prompt | None = None


class Window(TypedDict):
    """The transcript of one window; times in seconds from the start of the recording."""

    start: float
    end: float
    text: str
    language: str
    language_name: str
    segments: list[Segment]


class Segment(TypedDict):
    """A passage of a window's text, with the model's times."""

    start: float
    end: float
    text: str
    tokens: list[int]
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
