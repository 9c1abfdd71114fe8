"""POST /v1/audio/speech in OpenAI's shape, and text to speech in Hugging Face's."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from assay.plugins import declare
from tasks.text_to_speech.schema import (
    AudioFormat,
    Instructions,
    SpeechInputs,
    SpeechOptions,
    Speed,
    SpokenText,
    Voice,
)

# OpenAI's client sends no format by default, which means MP3.
DEFAULT_FORMAT: Literal["mp3"] = "mp3"
_CONTENT_TYPES = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "pcm": "audio/pcm",
}
# Samples of `pcm`: 16 bits, one channel, 24,000 a second.
_PCM = (1, 1, 24_000, 16)
_MOST_PARTS = 100


class SpeechRequest(declare.Strict):
    """The body of POST /v1/audio/speech."""

    model: declare.Name
    input: SpokenText
    voice: Voice
    response_format: Literal["wav", "flac", "mp3", "opus", "pcm", "aac"] | None = None
    speed: Annotated[Speed, Field(strict=False)] = 1.0
    stream_format: Literal["audio", "sse"] | None = None
    instructions: Instructions | None = None


class GenerationParameters(declare.Strict):
    """Hugging Face's settings of a generating model; voices support none of them."""


class Parameters(declare.Strict):
    """Settings of one request in Hugging Face's shape, and the voice."""

    voice: Voice | None = None
    speed: Annotated[Speed, Field(strict=False)] = 1.0
    generation_parameters: GenerationParameters | None = None


class TextToSpeechRequest(declare.Strict):
    """POST /v1/tasks/text-to-speech/{model}, as `huggingface_hub.InferenceClient` sends it."""

    inputs: SpokenText
    parameters: Parameters | None = None


def read_speech(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read POST /v1/audio/speech. Raises RequestInvalid."""
    request = declare.parse(SpeechRequest, body.data)
    response_format = request.response_format or DEFAULT_FORMAT
    if response_format == "aac":
        raise declare.RequestInvalid(
            "response_format aac is not supported; use mp3, opus, flac, wav or pcm.",
            param="response_format",
            code="unsupported_value",
        )
    if request.stream_format == "sse":
        raise declare.RequestInvalid(
            "stream_format sse is not supported; leave it out.",
            param="stream_format",
            code="unsupported_value",
        )
    file_format: AudioFormat = "wav" if response_format == "pcm" else response_format
    return _plan(
        request.model,
        SpeechInputs(text=request.input, voice=_voice(request.voice)),
        SpeechOptions(speed=request.speed, format=file_format, instructions=request.instructions),
        RecordingRenderer(response_format),
    )


def read_text_to_speech(body: declare.Body, request_id: str, name: str) -> declare.Plan:
    """Read POST /v1/tasks/text-to-speech/{model}. Raises RequestInvalid."""
    request = declare.parse(TextToSpeechRequest, body.data)
    parameters = request.parameters or Parameters()
    return _plan(
        name,
        SpeechInputs(text=request.inputs, voice=_voice(parameters.voice)),
        SpeechOptions(speed=parameters.speed, format="flac"),
        RecordingRenderer("flac"),
    )


def _voice(voice: str | None) -> str | None:
    """Return the voice, or None for `default`, the model's first voice."""
    return None if voice == "default" else voice


def _plan(
    model: str, inputs: SpeechInputs, options: SpeechOptions, renderer: RecordingRenderer
) -> declare.Plan:
    return declare.Plan(
        model=model,
        inputs=inputs,
        renderer=renderer,
        tokens=0,
        prompt_tokens=0,
        units=len(inputs.text),
        options=options,
    )


@dataclass(slots=True)
class RecordingRenderer:
    """The recording itself, as the whole body."""

    format: str

    def whole(self, answer: declare.Answer) -> declare.Rendered:
        result: declare.MediaResult = answer.results[0]
        data = _samples(result.data) if self.format == "pcm" else result.data
        return declare.Rendered(data, _CONTENT_TYPES[self.format])


def _samples(wav: bytes) -> bytes:
    """Return the samples of a WAV file, whose header may have any other parts.

    Raises:
        RequestInvalid: its samples are not those of `pcm`.
    """
    at, stated = 12, None
    # A provider may send any number of parts.
    for _ in range(_MOST_PARTS):
        if at + 8 > len(wav):
            break
        name, size = struct.unpack_from("<4sI", wav, at)
        at += 8
        if name == b"fmt " and at + 16 <= len(wav):
            kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", wav, at)
            stated = (kind, channels, rate, bits)
        if name == b"data" and stated == _PCM:
            # A file that was written to a pipe states the largest size.
            return wav[at : at + size]
        at += size + size % 2
    raise declare.RequestInvalid(
        "response_format pcm needs 24,000 samples of 16 bits a second, which this model does not "
        "make; use wav.",
        param="response_format",
    )
