"""Cutting a text into overlapping chunks, the same way each time. Knows no Django."""

from __future__ import annotations

import re

# Ends of a chunk, the best first: a paragraph, a sentence, a line, a word.
_ENDS = (
    re.compile(r"\n\s*\n"),
    re.compile(r"(?<=[.!?])\s+"),
    re.compile(r"\n"),
    re.compile(r"\s+"),
)
MAX_CHUNKS = 100_000
# In characters.
CHUNK_MIN, CHUNK_MAX, CHUNK_DEFAULT = 200, 4_000, 800
OVERLAP_DEFAULT = 120


def chunk_spans(text: str, size: int, overlap: int) -> list[tuple[int, int]]:
    """Return (start, end) in characters of chunks of at most `size`, in order.

    A chunk ends at the last paragraph, sentence, line or word in its second half, and the next one
    begins up to `overlap` characters before that end, at the start of a word. Chunks of spaces
    alone are left out. `overlap` must be less than half of `size`.
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


def _end(text: str, earliest: int, latest: int) -> int:
    for pattern in _ENDS:
        ends = [found.end() for found in pattern.finditer(text, earliest, latest)]
        if ends:
            return ends[-1]
    return latest


def _word_start(text: str, position: int, end: int) -> int:
    """Return the start of the first word after `position`; `end` when there is none before it."""
    found = re.compile(r"\s+").search(text, max(0, position), end)
    return found.end() if found is not None and found.end() < end else end


def _after_space(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position
