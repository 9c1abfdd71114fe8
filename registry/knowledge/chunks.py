"""Deterministic division of a text into overlapping chunks. Loads no Django."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

# Preferred ends of a chunk, the best first: a paragraph, a sentence, a line, a word.
_ENDS = (
    re.compile(r"\n\s*\n"),
    re.compile(r"(?<=[.!?])\s+"),
    re.compile(r"\n"),
    re.compile(r"\s+"),
)
MAX_CHUNKS = 100_000
# Chunk sizes and overlap in characters.
CHUNK_MIN, CHUNK_MAX, CHUNK_DEFAULT = 200, 4_000, 800
OVERLAP_DEFAULT = 120


def chunk_spans(text: str, size: int, overlap: int) -> list[tuple[int, int]]:
    """Return (start, end) in characters of chunks of at most `size`, in order.

    A chunk ends at the last paragraph, sentence, line or word in its second half, and the next one
    begins up to `overlap` characters before that end, at the start of a word. Chunks of only spaces
    are left out. `overlap` must be less than half of `size`.
    """
    spans: list[tuple[int, int]] = []
    start, length = _after_space(text, 0), len(text)
    while start < length:
        end = length if length - start <= size else _end(text, start + size // 2, start + size)
        trimmed = start + len(text[start:end].rstrip())
        if trimmed > start:
            spans.append((start, trimmed))
        if end >= length:
            break
        start = max(start + 1, _after_space(text, _word_start(text, end - overlap, end)))
    return spans


def fitted_spans(
    text: str,
    spans: Sequence[tuple[int, int]],
    overlap: int,
    fits: Callable[[list[str]], list[bool]],
) -> list[tuple[int, int]]:
    """Return the spans, each divided into parts until all parts fit.

    Raises ValueError if a single character does not fit.
    """
    fitted: list[tuple[int, int]] = []
    pieces = [text[start:end] for start, end in spans]
    for (start, end), piece, fit in zip(spans, pieces, fits(pieces), strict=True):
        if fit:
            fitted.append((start, end))
            continue
        half = (end - start) // 2
        if not half:
            raise ValueError(f"the character {piece[:1]!r} is longer than the model reads")
        shared = min(overlap, half // 4)
        parts = [(start + a, start + b) for a, b in chunk_spans(piece, half, shared)]
        fitted += fitted_spans(text, parts, shared, fits)
    return fitted


def _end(text: str, earliest: int, latest: int) -> int:
    for pattern in _ENDS:
        ends = [match.end() for match in pattern.finditer(text, earliest, latest)]
        if ends:
            return ends[-1]
    return latest


def _word_start(text: str, position: int, end: int) -> int:
    """Return the start of the first word after `position`, at most `end`."""
    match = re.compile(r"\s+").search(text, max(0, position), end)
    return match.end() if match is not None and match.end() < end else end


def _after_space(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position
