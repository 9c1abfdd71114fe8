"""POST /v1/tasks/text-to-audio/{model}, in Hugging Face's inference shape."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from assay.plugins import declare
from assay_tasks_extra.text_to_audio.notation import DEFAULT_TEMPO, MAX_TEMPO, MIN_TEMPO, pitch
from assay_tasks_extra.text_to_audio.schema import (
    DEFAULT_SECONDS,
    MAX_OPENING,
    MAX_SECONDS,
    MAX_SEED,
    MusicInputs,
    MusicOptions,
)

_KEY = re.compile(r"\b([A-G])([#b]?) (major|minor)\b")
_TEMPO = re.compile(r"\b(\d{2,3}) ?(?:bpm|BPM|beats)\b")
# Matches any letter, so that an invalid note is refused by name, not ignored as a word.
_NOTES = re.compile(
    r"\b[Nn]otes?:? "
    r"((?:(?:[A-Za-z][#b]*-?\d[\w#]*|[A-H][#b]?(?![\w#]| major| minor))[ ,]*)+)"
)
_STRAY = re.compile(r"\b[A-Ha-h][#b]?-?\d(?!\w)")


class GenerationParameters(declare.Strict):
    """Hugging Face's settings of a generating model that apply to music."""

    temperature: Annotated[float, Field(ge=0.05, le=2, strict=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, strict=False)] | None = None


class Parameters(GenerationParameters):
    """`seconds` and `seed` are extensions of Assay: equal seeds compose equal music.

    The client sends settings of generation directly; the API's description nests them.
    """

    seconds: Annotated[float, Field(ge=2, le=MAX_SECONDS, strict=False)] | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    generation_parameters: GenerationParameters | None = None


class TextToAudioRequest(declare.Strict):
    """A text with a key, a tempo or the first notes, such as `A minor, 96 bpm, notes A4 B4 C5`."""

    inputs: Annotated[str, Field(min_length=1, max_length=1_000)]
    parameters: Parameters | None = None


def read_text_to_audio(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read the request. Raises RequestInvalid."""
    request = declare.parse(TextToAudioRequest, body.data)
    parameters = request.parameters or Parameters()
    sampling = parameters.generation_parameters or parameters
    if sampling is not parameters and (parameters.temperature, parameters.top_p) != (None, None):
        raise declare.RequestInvalid(
            "temperature and top_p are sent twice. Send them in parameters or in "
            "generation_parameters.",
            param="parameters.generation_parameters",
        )
    usual = MusicOptions()
    seconds = parameters.seconds or DEFAULT_SECONDS
    return declare.Plan(
        model=name,
        inputs=_inputs(request.inputs, parameters.seed),
        renderer=RecordingRenderer(),
        tokens=0,
        prompt_tokens=0,
        units=math.ceil(seconds),
        options=MusicOptions(
            seconds=seconds,
            temperature=sampling.temperature or usual.temperature,
            top_p=sampling.top_p or usual.top_p,
        ),
    )


def _inputs(text: str, seed: int | None) -> MusicInputs:
    key, tempo, notes = _KEY.search(text), _TEMPO.search(text), _NOTES.search(text)
    if stray := _STRAY.search(_NOTES.sub(" ", text, count=1)):
        raise declare.RequestInvalid(
            f"inputs has {stray[0]!r} outside of its notes. Write all notes together, such as "
            "'notes A4 B4 C5'.",
            param="inputs",
        )
    if not (key or tempo or notes):
        raise declare.RequestInvalid(
            "inputs names no key, tempo or notes. Write a text such as 'A minor, 96 bpm, notes A4 "
            "B4 C5'.",
            param="inputs",
        )
    beats = int(tempo[1]) if tempo else DEFAULT_TEMPO
    if not MIN_TEMPO <= beats <= MAX_TEMPO:
        raise declare.RequestInvalid(
            f"inputs names {beats} beats a minute; {MIN_TEMPO} to {MAX_TEMPO} are supported.",
            param="inputs",
        )
    opening = re.split(r"[ ,]+", notes[1].strip(" ,")) if notes else []
    if len(opening) > MAX_OPENING:
        raise declare.RequestInvalid(
            f"inputs names {len(opening)} notes; at most {MAX_OPENING} are accepted.",
            param="inputs",
        )
    try:
        for note in opening:
            pitch(note)
    except ValueError as error:
        raise declare.RequestInvalid(f"inputs: {error}.", param="inputs") from None
    return MusicInputs(
        key=f"{key[1]}{key[2]} {key[3]}" if key else "C major",
        tempo=beats,
        opening=opening,
        seed=seed,
    )


@dataclass(slots=True)
class RecordingRenderer:
    """The recording itself, as the whole body."""

    def whole(self, answer: declare.Answer) -> declare.Rendered:
        result: declare.MediaResult = answer.results[0]
        return declare.Rendered(result.data, result.content_type)
