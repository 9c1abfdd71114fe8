"""Types of voice activity detection: dataset rows, inputs, options and results."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import TypedDict

from assay.plugins import declare

MAX_SEGMENTS = 10_000
Second = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]


class Span(BaseModel):
    """A stretch of speech, in seconds from the start."""

    model_config = ConfigDict(extra="forbid", strict=True)

    start: Second
    end: Second

    @model_validator(mode="after")
    def _in_order(self) -> Span:
        if self.end <= self.start:
            raise ValueError("a span must end after its start")
        return self


class MarkedRecording(BaseModel):
    """One recording and its stretches of speech; an empty list without speech."""

    model_config = ConfigDict(extra="forbid", strict=True)

    audio: declare.AudioFile
    segments: list[Span] = Field(max_length=MAX_SEGMENTS)


class DetectionOptions(declare.Options):
    """`threshold` is the minimum probability of speech. Segments and pauses that are shorter than
    the minimum are dropped; `speech_pad_ms` widens segments on both sides."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    min_speech_ms: Annotated[int, Field(ge=0, le=10_000)] = 250
    min_silence_ms: Annotated[int, Field(ge=0, le=10_000)] = 100
    speech_pad_ms: Annotated[int, Field(ge=0, le=1_000)] = 30


class SpeechSegment(TypedDict):
    """A stretch of speech in seconds; `score` is its mean probability of speech."""

    start: float
    end: float
    score: float


class Activity(TypedDict):
    """All speech of a recording of `duration` seconds."""

    duration: float
    segments: list[SpeechSegment]
