"""What is settled and what is refused, into Redis: quota and usage entry in one call.

What Redis does not take is held in memory, logged in full, and tried again every second; while
anything is held the gateway lets no new request through (`blocked`), because it could not be
accounted for. The answer that was computed meanwhile is still delivered.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any

import redis

from assay.gateway.metrics import HELD, UNRECORDED
from assay.gateway.quotas import Quotas
from governance.usage.records import UsageEntry

logger = logging.getLogger(__name__)

_ATTEMPTS = 3
_RETRY_S = 1.0
_HELD_AT_MOST = 10_000
ANONYMOUS_PER_S = 10
PER_KEY_PER_S = 20


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of one request. `refund` gives the request itself back too: it never ran. `tokens`
    count on limits per minute although the request was no use.
    """

    entry: UsageEntry
    tokens: int = 0
    refund: bool = False


class Ledger:
    """Start and stop it on one event loop."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self._held: deque[Settlement] = deque()
        self._background: set[asyncio.Task[None]] = set()
        self._limiter = RefusalLimiter()
        self._retrier: asyncio.Task[None] | None = None

    @property
    def blocked(self) -> bool:
        """Whether something could not be accounted for, so that nothing more may run."""
        return bool(self._held)

    def start(self) -> None:
        self._retrier = asyncio.create_task(self._retry())

    async def stop(self) -> None:
        """Let what is under way end; whatever is still held stands in the log."""
        if self._background:
            await asyncio.wait(self._background, timeout=5)
        if self._retrier is not None:
            self._retrier.cancel()
            await asyncio.gather(self._retrier, return_exceptions=True)

    async def settle(self, settlement: Settlement) -> None:
        """Settle quota and record usage, once. Never raises: what fails is held."""
        for attempt in range(_ATTEMPTS):
            try:
                await self._apply(settlement)
                return
            except (redis.RedisError, OSError) as error:
                failure = error
                await asyncio.sleep(0.05 * 2**attempt)
        logger.error(
            "USAGE NOT RECORDED (%s); held, and no request is let through until it is: %s",
            failure,
            settlement.entry.encode(),
        )
        if len(self._held) < _HELD_AT_MOST:
            self._held.append(settlement)
            HELD.set(len(self._held))

    def record_refusal(self, entry: UsageEntry) -> None:
        """Record a refusal in the background, at a bounded rate.

        Beyond the rate refusals are counted, and the next one that is recorded says how many.
        """
        admitted, skipped = self._limiter.admit(entry.key_public_id)
        if not admitted:
            UNRECORDED.inc()
            return
        if skipped:
            entry = replace(entry, reason=f"{entry.reason} ({skipped} more were not recorded.)")
        self.spawn(self.settle(Settlement(entry)))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its end although the request that caused it is over."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _apply(self, settlement: Settlement) -> None:
        await self._quotas.settle(
            settlement.entry, tokens=settlement.tokens, refund=settlement.refund
        )

    async def _retry(self) -> None:
        while True:
            await asyncio.sleep(_RETRY_S)
            while self._held:
                try:
                    await self._apply(self._held[0])
                except (redis.RedisError, OSError):
                    break
                self._held.popleft()
                HELD.set(len(self._held))
                if not self._held:
                    logger.warning("Everything that was held is recorded; requests run again.")


class RefusalLimiter:
    """At most so many recorded refusals a second, for each key and for all strangers together."""

    def __init__(self) -> None:
        self._second = 0
        self._counts: dict[str, int] = {}
        self._skipped: dict[str, int] = {}

    def admit(self, key_public_id: str) -> tuple[bool, int]:
        """Whether to record one now, and how many were not since the last one that was."""
        second = int(time.monotonic())
        if second != self._second:
            self._second = second
            self._counts.clear()
        count = self._counts.get(key_public_id, 0) + 1
        self._counts[key_public_id] = count
        if count > (PER_KEY_PER_S if key_public_id else ANONYMOUS_PER_S):
            self._skipped[key_public_id] = self._skipped.get(key_public_id, 0) + 1
            return False, 0
        return True, self._skipped.pop(key_public_id, 0)
