"""Bounds on what waits for the few threads that ask the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from governance.errors import Unavailable


class WaitingBound:
    """Counts what waits, in all and of each department, so that none keeps another out."""

    def __init__(self, *, total: int, of_department: int, refusal: str) -> None:
        self._total = total
        self._of_department = of_department
        self._refusal = refusal
        self._waiting: Counter[str] = Counter()

    @contextmanager
    def place(self, department: str) -> Iterator[None]:
        """Take a place until the block ends.

        Raises:
            Unavailable: All places are taken, or all of the department.
        """
        full = self._waiting.total() >= self._total
        if full or self._waiting[department] >= self._of_department:
            raise Unavailable(self._refusal, retry_after=2)
        self._waiting[department] += 1
        try:
            yield
        finally:
            self._waiting[department] -= 1
            self._waiting += Counter()  # Forgets departments that wait for nothing.
