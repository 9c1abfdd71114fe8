"""Types of results that several tasks share."""

from __future__ import annotations

from typing_extensions import TypedDict


class Label(TypedDict):
    """A label and its score, from 0 to 1."""

    label: str
    score: float
