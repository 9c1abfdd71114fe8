"""Checks that the database can store text and numbers of a run."""

from __future__ import annotations

import math
import re
from typing import TypeVar

T = TypeVar("T")
# PostgreSQL cannot store NUL, and UTF-8 cannot encode halves of surrogate pairs.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def cleaned(text: str) -> str:
    """Return the text with replacement characters for characters that cannot be stored."""
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def storable(value: T) -> T:
    """Return a JSON value after checking that all of its text and numbers can be stored.

    Raises:
        ValueError: a character or a number cannot be stored.
    """
    waiting: list[object] = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            if _UNSTORABLE.search(each):
                raise ValueError("holds a character that cannot be stored")
        elif isinstance(each, float):
            if not math.isfinite(each):
                raise ValueError("holds a number that is not finite")
        elif isinstance(each, dict):
            waiting += [*each.keys(), *each.values()]
        elif isinstance(each, (list, tuple)):
            waiting += each
    return value
