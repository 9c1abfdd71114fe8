"""Requests that wait behind the queues of deployments, in one list for each department.

Workers read only the queue of a deployment, and the script of quotas keeps it short, so that the
requests of departments take turns in it. Every process with such requests moves them on: when one
of its requests ends, and at short intervals. Once no process has any, the lists expire.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable

import redis

logger = logging.getLogger(__name__)
# Workers empty the queue between two calls only if they begin more than 32 requests in this time.
EVERY_S = 0.05
# Pause after an error of the broker, in seconds.
_PAUSE_S = 1.0


class Backlogs:
    """Queues that requests of this process wait behind. `advance` fills a queue, and returns the
    number of requests that still wait behind it."""

    def __init__(self, advance: Callable[[str], Awaitable[int]]) -> None:
        self._advance = advance
        self._running: Counter[str] = Counter()
        self._moved: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __contains__(self, queue: str) -> bool:
        return queue in self._moved

    def begin(self, queue: str) -> None:
        """Note that a request to the queue's deployment begins."""
        self._running[queue] += 1

    def end(self, queue: str) -> None:
        """Note that a request to the queue's deployment has ended."""
        self._running[queue] -= 1
        if self._running[queue] <= 0:
            del self._running[queue]
        if queue in self._moved:
            self._moved[queue].set()

    def note(self, queue: str) -> None:
        """Move requests on from now on, until none waits behind the queue or no request of this
        process runs."""
        if queue in self._moved:
            # A call that was sent before this request came may answer that none waits.
            self._moved[queue].set()
            return
        self._moved[queue] = asyncio.Event()
        task = asyncio.create_task(self._run(queue, self._moved[queue]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop. Other processes go on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, queue: str, moved: asyncio.Event) -> None:
        try:
            # Without this bound, the requests of a stopped deployment would never expire.
            while queue in self._running:
                moved.clear()
                try:
                    if not await self._advance(queue) and not moved.is_set():
                        return
                except (redis.RedisError, OSError) as error:
                    logger.warning("Requests behind %s cannot be moved on: %s", queue, error)
                    await asyncio.sleep(_PAUSE_S)
                    continue
                try:
                    async with asyncio.timeout(EVERY_S):
                        await moved.wait()
                except TimeoutError:
                    continue
        finally:
            del self._moved[queue]
