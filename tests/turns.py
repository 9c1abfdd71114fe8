"""Samples of long walks: each place gets some of the values, and all values get their turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Value = TypeVar("Value")


def some(values: Sequence[Value], number: int, count: int) -> list[Value]:
    """Return `count` of the values for the place of this number; the next place gets the next ones.

    Places share the code that refuses odd values. One request for each pair of place and value took
    most of the suite's time and found nothing that this does not.
    """
    start = number * count
    return [values[(start + each) % len(values)] for each in range(min(count, len(values)))]
