"""Limit on concurrent work, with a bounded queue."""

from __future__ import annotations

import asyncio

from governance.errors import Unavailable

RETRY_AFTER_S = 5


class Overloaded(Unavailable):
    """More requests are waiting than the process can answer in time (503)."""

    code = "overloaded"
    title = "Too many requests at once"

    def __init__(self) -> None:
        super().__init__(
            "Too many requests are waiting, so this one was not started.",
            hint="Nothing was changed. Try again in a few seconds.",
            retry_after=RETRY_AFTER_S,
        )


class Gate:
    """Admits `size` holders at a time. At most `queue` more wait, each at most `wait_s` seconds."""

    def __init__(self, *, size: int, queue: int, wait_s: float) -> None:
        self._free = asyncio.Semaphore(size)
        self._queue = queue
        self._wait_s = wait_s
        self.waiting = 0

    async def enter(self) -> None:
        """Return once there is room; call `leave` afterward.

        Raises:
            Overloaded: the queue is full, or the wait was too long.
        """
        if self._free.locked() and self.waiting >= self._queue:
            raise Overloaded
        self.waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await self._free.acquire()
        except TimeoutError:
            raise Overloaded from None
        finally:
            self.waiting -= 1

    def leave(self) -> None:
        self._free.release()
