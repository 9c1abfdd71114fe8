"""Segments of a transcript, from tokens with timestamps between them."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from tasks.automatic_speech_recognition.decoding import Decoded
from tasks.automatic_speech_recognition.schema import Segment

# One step of Whisper's timestamps.
STEP_S = 0.02


def segments(
    decoded: Decoded,
    *,
    start_s: float,
    end_s: float,
    timestamp_begin: int,
    text_of: Callable[[list[int]], str],
) -> list[Segment]:
    """Return [{start, end, text, tokens, …}, …]; a segment without an end lasts to `end_s`."""
    result: list[Segment] = []
    tokens: list[int] = []
    logprobs: list[float] = []
    begin = start_s

    def close(end: float) -> None:
        text = text_of(tokens)
        if text.strip():
            result.append(
                {
                    "start": round(begin, 2),
                    "end": round(max(begin, end), 2),
                    "text": text,
                    "tokens": list(tokens),
                    "avg_logprob": sum(logprobs) / len(logprobs),
                    "compression_ratio": _compression_ratio(text),
                    "no_speech_prob": decoded.no_speech_prob,
                }
            )
        tokens.clear()
        logprobs.clear()

    for token, logprob in zip(decoded.tokens, decoded.logprobs, strict=True):
        if token < timestamp_begin:
            tokens.append(token)
            logprobs.append(logprob)
            continue
        at = min(start_s + (token - timestamp_begin) * STEP_S, end_s)
        if tokens:
            close(at)
        begin = at
    if tokens:
        close(end_s)
    return result


def _compression_ratio(text: str) -> float:
    data = text.encode("utf-8")
    return len(data) / len(zlib.compress(data))
