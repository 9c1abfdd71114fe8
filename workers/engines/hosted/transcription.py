"""Transcription in OpenAI's wire shape. The recording is sent as a multipart form.

The answer has the form of own models: one window, whose segments have times if they are requested.
"""

from __future__ import annotations

import secrets
from itertools import pairwise
from typing import Any

from registry.catalog.hosted import HostedDescription
from registry.catalog.inputs import Inputs, Options
from workers.engines.hosted.shapes import Call, State, finite, media_bytes, task_settings
from workers.engines.hosted.whole_answers import WholeReader
from workers.engines.protocol import RequestRefused

# First bytes of recordings; any other is MP3, which may begin in several ways.
_FILES = ((b"RIFF", "wav"), (b"fLaC", "flac"), (b"OggS", "ogg"))
_TYPES = {"wav": "audio/wav", "flac": "audio/flac", "ogg": "audio/ogg", "mp3": "audio/mpeg"}
_MAX_CHARACTERS, _MAX_SEGMENTS, _MAX_S = 1_000_000, 20_000, 86_400.0


def call(description: HostedDescription, inputs: Inputs, options: Options, *, stream: bool) -> Call:
    """Return the call for a recording. Raises RequestRefused."""
    recording = getattr(inputs, "audio", None)
    if recording is None:
        raise RequestRefused("This operation of the provider only transcribes recordings.")
    used = task_settings(description, inputs, options, content={"audio"})
    fields = {"model": description.model}
    translate, segments = used.pop("translate", False), used.pop("segments", False)
    fields["response_format"] = "verbose_json" if segments else "json"
    if segments and not translate:
        fields["timestamp_granularities[]"] = "segment"
    fields |= {name: str(value) for name, value in used.items()}
    content, content_type = _form(fields, media_bytes(recording))
    return Call(
        "/audio/translations" if translate else "/audio/transcriptions",
        {"segments": segments},
        {"Content-Type": content_type},
        content=content,
        accepts=frozenset({"application/json"}),
    )


def _form(fields: dict[str, str], file: bytes) -> tuple[bytes, str]:
    """Return a form with a file, and its content type."""
    boundary = secrets.token_hex(16)
    ending = next((name for head, name in _FILES if file.startswith(head)), "mp3")
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; '
        f'filename="recording.{ending}"\r\nContent-Type: {_TYPES[ending]}\r\n\r\n'
    )
    content = b"".join((*parts, head.encode(), file, f"\r\n--{boundary}--\r\n".encode()))
    return content, f"multipart/form-data; boundary={boundary}"


def reader(description: HostedDescription, call: Call) -> TranscriptReader:
    """Return a reader for the answer to a call."""
    return TranscriptReader(State(), has_segments=call.body["segments"])


class TranscriptReader(WholeReader):
    """Reads a transcript, with its segments if they were requested."""

    def __init__(self, state: State, *, has_segments: bool) -> None:
        super().__init__(state)
        self._has_segments = has_segments

    def _results(self, body: bytes) -> list[Any]:
        answer = self._parsed(body)
        segments: list[dict[str, Any]] = []
        if self._has_segments:
            segments = [_segment(each) for each in answer["segments"]]
            if len(segments) > _MAX_SEGMENTS:
                raise ValueError(f"it has more than {_MAX_SEGMENTS:,} segments")
            if any(one["start"] > other["start"] for one, other in pairwise(segments)):
                raise ValueError("its segments are not in the order of their times")
        end = max([_seconds(answer.get("duration") or 0), *(each["end"] for each in segments)])
        language = _text(answer.get("language") or "")[:40]
        window = {
            "start": 0.0,
            "end": end,
            "text": _text(answer["text"]).strip(),
            "language": language,
            "language_name": language,
            "segments": segments,
        }
        return [window]


def _segment(stated: Any) -> dict[str, Any]:
    start, end = _seconds(stated["start"]), _seconds(stated["end"])
    if end < start:
        raise ValueError("a segment ends before it starts")
    tokens = stated.get("tokens") or []
    if not all(type(token) is int for token in tokens):
        raise ValueError("a token is not a whole number")
    return {
        "start": start,
        "end": end,
        "text": _text(stated["text"]),
        "tokens": tokens,
        "avg_logprob": finite(stated.get("avg_logprob", 0)),
        "compression_ratio": finite(stated.get("compression_ratio", 0)),
        "no_speech_prob": finite(stated.get("no_speech_prob", 0)),
    }


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MAX_CHARACTERS:
        raise ValueError(f"a text is not a string of at most {_MAX_CHARACTERS:,} characters")
    return value


def _seconds(value: Any) -> float:
    # Some servers state the duration as a text.
    seconds = finite(float(value) if isinstance(value, str) else value)
    if not 0 <= seconds <= _MAX_S:
        raise ValueError("a time is not within a day")
    return round(seconds, 3)
