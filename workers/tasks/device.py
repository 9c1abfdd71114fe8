"""How much of a device's time each request takes when several run on it at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class DeviceClock:
    """One device shared in equal parts: while n requests run, each takes 1/n of every second, so
    that the shares of all add up to the time in which the device was busy.

    It adds up what one request that never ends would take; a request's share is how far that has
    come between its beginning and its end.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._share_s = 0.0
        self._read_at = now()
        self._began_at: dict[str, float] = {}

    def enter(self, request_id: str) -> None:
        """It runs from now on."""
        with self._lock:
            self._advance()
            self._began_at[request_id] = self._share_s

    def leave(self, request_id: str) -> int:
        """It has ended; its share in ms, 0 when it was not running."""
        with self._lock:
            self._advance()
            began = self._began_at.pop(request_id, None)
            return 0 if began is None else round(1000 * (self._share_s - began))

    def _advance(self) -> None:
        now = self._now()
        if self._began_at:
            self._share_s += (now - self._read_at) / len(self._began_at)
        self._read_at = now
