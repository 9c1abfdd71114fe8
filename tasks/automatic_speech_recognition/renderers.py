"""Transcripts as JSON, text and subtitles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from assay.plugins import declare

ResponseFormat = Literal["json", "text", "srt", "vtt", "verbose_json"]
# Formats that state the times of segments.
WITH_SEGMENTS = frozenset({"srt", "vtt", "verbose_json"})


def whole_text(windows: list[dict[str, Any]]) -> str:
    """Return the text of all windows."""
    return " ".join(window["text"] for window in windows if window["text"])


def _segments(windows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [segment for window in windows for segment in window["segments"]]


@dataclass(slots=True)
class TranscriptionRenderer:
    """OpenAI's five formats."""

    response_format: ResponseFormat
    temperature: float
    translated: bool = False

    def whole(self, answer: declare.Answer) -> dict[str, Any] | declare.Rendered:
        windows = answer.results
        text = whole_text(windows)
        usage = {"type": "duration", "seconds": answer.units}
        if self.response_format == "json":
            return {"text": text, "usage": usage}
        if self.response_format == "text":
            return declare.Rendered(f"{text}\n".encode(), "text/plain; charset=utf-8")
        if self.response_format == "srt":
            return declare.Rendered(_srt(_segments(windows)).encode(), "text/plain; charset=utf-8")
        if self.response_format == "vtt":
            return declare.Rendered(_vtt(_segments(windows)).encode(), "text/vtt; charset=utf-8")
        return {
            "task": "translate" if self.translated else "transcribe",
            "language": "english" if self.translated else windows[0]["language_name"],
            "duration": windows[-1]["end"],
            "text": text,
            "segments": [
                {"id": number, "seek": 0, "temperature": self.temperature, **segment}
                for number, segment in enumerate(_segments(windows))
            ],
            "usage": usage,
        }


@dataclass(slots=True)
class ChunksRenderer:
    """Hugging Face's shape: text, and its segments with times if the request wants them."""

    chunks: bool

    def whole(self, answer: declare.Answer) -> dict[str, Any]:
        text = whole_text(answer.results)
        if not self.chunks:
            return {"text": text}
        return {
            "text": text,
            "chunks": [
                {"text": each["text"], "timestamp": [each["start"], each["end"]]}
                for each in _segments(answer.results)
            ],
        }


def _srt(segments: list[dict[str, Any]]) -> str:
    return "".join(
        f"{number}\n{_clock(each['start'], ',')} --> {_clock(each['end'], ',')}\n"
        f"{_line(each['text'])}\n\n"
        for number, each in enumerate(segments, start=1)
    )


def _vtt(segments: list[dict[str, Any]]) -> str:
    return "WEBVTT\n\n" + "".join(
        f"{_clock(each['start'], '.')} --> {_clock(each['end'], '.')}\n{_line(each['text'])}\n\n"
        for each in segments
    )


def _line(text: str) -> str:
    """Return the text as one line, without an arrow, which a player would read as times."""
    return " ".join(text.split()).replace("-->", "→")


def _clock(seconds: float, point: str) -> str:
    total = round(seconds * 1_000)
    minutes, rest = divmod(total, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest // 1_000:02}{point}{rest % 1_000:03}"
