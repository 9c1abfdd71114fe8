"""Counts and short sentences for people. Imports no Django."""

from __future__ import annotations

import re

# Starts of a message that lacks its subject.
PREDICATE = re.compile(
    r"(?:is|are|has|have|must|contains|does|needs|names|belong|could|differs|holds) "
)


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: `1 job`, `1,200 jobs`, `2 copies`."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def field_text(text: str) -> str:
    """Return a message to be shown next to its field: `Must be at most 8.` for `must be at most 8`,
    `This field is empty.` for `is empty`. A message with a subject stays unchanged.
    """
    if not PREDICATE.match(text):
        return text
    text = text.rstrip(".")
    return f"Must {text[5:]}." if text.startswith("must ") else f"This field {text}."
