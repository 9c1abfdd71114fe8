"""Types of text to audio: rows of music, inputs and options. A result is a recording."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from assay.plugins import declare
from assay_tasks_extra.text_to_audio.notation import MAX_TEMPO, MIN_TEMPO, parse, pitch

MAX_CHARACTERS = 20_000
MAX_SECONDS = 60
DEFAULT_SECONDS = 12
MAX_OPENING = 16
MAX_SEED = 2**32 - 1


def _music(text: str) -> str:
    parse(text)
    return text


def _note(text: str) -> str:
    pitch(text)
    return text


# Music in the notation of `notation.py`.
Music = Annotated[str, Field(min_length=1, max_length=MAX_CHARACTERS), AfterValidator(_music)]


class NamedPiece(BaseModel):
    """One piece of four voices."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=100)
    music: Music


class MusicInputs(declare.Inputs):
    """A key, beats a minute, and the soprano's first notes, one a beat.

    With `music`, the result is the likelihood of that piece, not a recording.
    """

    key: Annotated[str, Field(pattern=r"^[A-G][#b]? (major|minor)$")] = "C major"
    tempo: Annotated[int, Field(ge=MIN_TEMPO, le=MAX_TEMPO)] = 96
    opening: list[Annotated[str, Field(max_length=8), AfterValidator(_note)]] = Field(
        default_factory=list, max_length=MAX_OPENING
    )
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    music: Music | None = None


class MusicOptions(declare.Options):
    """Length of the recording, and sampling of the notes."""

    seconds: Annotated[float, Field(ge=2, le=MAX_SECONDS, allow_inf_nan=False)] = DEFAULT_SECONDS
    temperature: Annotated[float, Field(ge=0.05, le=2, allow_inf_nan=False)] = 0.9
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.95
