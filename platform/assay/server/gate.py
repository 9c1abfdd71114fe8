"""A bound on work that is done at once, with a bounded queue before it."""

from __future__ import annotations

import asyncio

from governance.errors import Unavailable

RETRY_AFTER_S = 5


class Overloaded(Unavailable):
    """More requests wait than the process can answer in time (503)."""

    code = "overloaded"
    title = "Too many requests at once"

    def __init__(self) -> None:
        super().__init__(
            "Too many requests are waiting, so this one was not started.",
            hint="Nothing was changed. Try again in a few seconds.",
            retry_after=RETRY_AFTER_S,
        )


class Gate:
    """Lets `size` holders in at once. At most `queue` more wait, each `wait_s` seconds at most."""

    def __init__(self, *, size: int, queue: int, wait_s: float) -> None:
        self._free = asyncio.Semaphore(size)
        self._queue = queue
        self._wait_s = wait_s
        self.waiting = 0

    async def enter(self) -> None:
        """Return once there is room; whoever enters calls `leave`.

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
