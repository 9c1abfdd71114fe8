"""Speed of a file's transfer: reports progress, and ends transfers that would take too long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from registry.storage.backend import StoreUnavailable

# Interval of progress reports to the watcher.
TOLD_S = 15.0
# Period over which the speed is judged, so that a short interruption does not matter.
JUDGED_S = 120.0
# A transfer that would take longer at its speed is ended; the next try resumes it.
LONGEST_S = 12 * 3600.0

_watcher: ContextVar[Callable[[str], None] | None] = ContextVar("watcher", default=None)


@contextmanager
def watch_fetches(report: Callable[[str], None]) -> Iterator[None]:
    """Call `report` every 15 s with a sentence on the progress of this context's fetch. It may
    raise an exception to end the fetch.
    """
    before = _watcher.set(report)
    try:
        yield
    finally:
        _watcher.reset(before)


class Pace:
    """Speed of one file of `size` bytes, of which `here` have already arrived."""

    def __init__(self, name: str, size: int, here: int) -> None:
        self._name = name
        self._size = size
        self._here = here
        self._told, self._judged = _Mark(here), _Mark(here)
        self._watcher = _watcher.get()

    def add(self, count: int) -> None:
        """Count bytes that arrived.

        Raises:
            StoreUnavailable: the rest would take more than 12 hours.
        """
        self._here += count
        if (speed := self._judged.speed(self._here, JUDGED_S)) is not None:
            if self._size - self._here > speed * LONGEST_S:
                raise StoreUnavailable(
                    f"The store is too slow. {self._so_far(speed)}",
                    code="store_too_slow",
                    hint="Check the network; the next try resumes where this one ended.",
                    retry_after=60,
                )
            self._judged = _Mark(self._here)
        if (speed := self._told.speed(self._here, TOLD_S)) is not None:
            self._told = _Mark(self._here)
            if self._watcher is not None:
                self._watcher(f"Fetching files. {self._so_far(speed)}")

    def _so_far(self, speed: float) -> str:
        return (
            f"{_bytes(self._here)} of {_bytes(self._size)} of file {self._name} have arrived, "
            f"at {_bytes(speed)} per second."
        )


class _Mark:
    """A number of bytes, and the time at which it was reached."""

    def __init__(self, here: int) -> None:
        self._here, self._at = here, time.monotonic()

    def speed(self, here: int, after_s: float) -> float | None:
        """Return the bytes per second since this mark; None until `after_s` have passed."""
        passed_s = time.monotonic() - self._at
        return None if passed_s < after_s else (here - self._here) / max(passed_s, 0.001)


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
