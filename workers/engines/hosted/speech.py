"""Recordings of texts, in OpenAI's wire shape."""

from __future__ import annotations

from typing import Any

from registry.catalog.hosted import HostedDescription
from registry.catalog.inputs import Inputs, Options
from workers.egress.connections import ProviderFailed
from workers.engines.hosted.shapes import Call, State, task_settings
from workers.engines.hosted.whole_answers import WholeReader
from workers.engines.protocol import RequestRefused
from workers.engines.runner import MediaOutput

# Bytes of one recording: five minutes of uncompressed sound have 15 million.
MAX_RECORDING = 32 * 1024 * 1024
# Content type of each format, other names of it, and the first bytes of its files.
_FORMATS: dict[str, tuple[str, frozenset[str], tuple[bytes, ...]]] = {
    "wav": ("audio/wav", frozenset({"audio/x-wav", "audio/wave"}), (b"RIFF",)),
    "flac": ("audio/flac", frozenset({"audio/x-flac"}), (b"fLaC",)),
    "opus": ("audio/ogg", frozenset({"audio/opus"}), (b"OggS",)),
    "mp3": (
        "audio/mpeg",
        frozenset({"audio/mp3"}),
        (b"ID3", b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2"),
    ),
}


def call(description: HostedDescription, inputs: Inputs, options: Options, *, stream: bool) -> Call:
    """Return the call for a text to speak. Raises RequestRefused."""
    text, form = getattr(inputs, "text", None), getattr(options, "format", None)
    if text is None or form not in _FORMATS:
        raise RequestRefused("This operation of the provider only speaks texts.")
    used = task_settings(description, inputs, options, content={"text", "voice", "format"})
    voice = getattr(inputs, "voice", None) or description.voices[0]
    if voice not in description.voices:
        raise RequestRefused(
            f"voice is {voice!r}; this model speaks as {', '.join(description.voices)}."
        )
    body = {"model": description.model, "input": text, "voice": voice, "response_format": form}
    name, others, _ = _FORMATS[form]
    return Call(
        "/audio/speech",
        body | used,
        accepts=frozenset({name, *others, "application/octet-stream"}),
        most=MAX_RECORDING,
    )


def reader(description: HostedDescription, call: Call) -> RecordingReader:
    """Return a reader for the answer to a call."""
    return RecordingReader(State(), call.body["response_format"])


class RecordingReader(WholeReader):
    """Reads a recording in the requested format."""

    def __init__(self, state: State, form: str) -> None:
        super().__init__(state)
        self._form = form

    def _results(self, body: bytes) -> list[Any]:
        content_type, _, heads = _FORMATS[self._form]
        if not body.startswith(heads):
            raise ProviderFailed(f"The provider sent a file that is not a {self._form} recording.")
        return [MediaOutput(body, content_type)]
