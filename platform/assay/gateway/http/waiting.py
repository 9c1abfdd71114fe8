"""Bounds on requests that wait for a scarce resource, such as the few database threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from governance.errors import Unavailable


class WaitingBound:
    """Limits waiting requests in total and per department, so that none can block the others."""

    def __init__(self, *, total: int, of_department: int, refusal: str) -> None:
        self._total = total
        self._of_department = of_department
        self._refusal = refusal
        self._waiting: Counter[str] = Counter()

    @contextmanager
    def place(self, department: str) -> Iterator[None]:
        """Take a place until the block ends.

        Raises:
            Unavailable: all places, or all those of the department, are taken.
        """
        full = self._waiting.total() >= self._total
        if full or self._waiting[department] >= self._of_department:
            raise Unavailable(self._refusal, retry_after=2)
        self._waiting[department] += 1
        try:
            yield
        finally:
            self._waiting[department] -= 1
            self._waiting += Counter()  # Removes departments with a count of 0.
