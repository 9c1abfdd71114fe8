"""Settle and refuse requests in Redis: quota and usage entry in one call.

A settlement that Redis does not accept is kept in memory, logged in full, and retried every second.
Until then the gateway refuses new requests (`blocked`), because their use could not be recorded.
The answer itself is still delivered.
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

from assay.gateway.monitoring.metrics import PENDING_SETTLEMENTS, UNRECORDED
from assay.gateway.quota.quotas import Quotas
from governance.errors import Unavailable
from governance.usage.records import UsageEntry
from workers.request_logs import about

logger = logging.getLogger(__name__)

_ATTEMPTS = 3
_RETRY_S = 1.0
_PENDING_MAX = 10_000
ANONYMOUS_PER_S = 10
PER_KEY_PER_S = 20


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of one request. `units` count on limits per minute even if the request failed."""

    entry: UsageEntry
    units: int = 0


class Ledger:
    """Start and stop it on one event loop."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self._pending: deque[Settlement] = deque()
        self._background: set[asyncio.Task[None]] = set()
        self._limiter = RefusalLimiter()
        self._last_skipped: dict[str, UsageEntry] = {}
        self._retrier: asyncio.Task[None] | None = None

    @property
    def blocked(self) -> bool:
        """True after an accounting failure, while no more requests may run."""
        return bool(self._pending)

    def require_open(self) -> None:
        """Raise Unavailable while `blocked`."""
        if self._pending:
            raise Unavailable("Usage cannot be recorded, so requests are refused.", retry_after=2)

    def start(self) -> None:
        self._retrier = asyncio.create_task(self._retry())

    async def stop(self) -> None:
        """Wait for background work; settlements that were not accepted are in the log."""
        if self._background:
            await asyncio.wait(self._background, timeout=5)
        if self._retrier is not None:
            self._retrier.cancel()
            await asyncio.gather(self._retrier, return_exceptions=True)
        await self._record_skipped()

    async def settle(self, settlement: Settlement) -> None:
        """Settle quota and record usage, once. Never raises: a failed settlement is kept."""
        for attempt in range(_ATTEMPTS):
            try:
                await self._apply(settlement)
                return
            except (redis.RedisError, OSError) as error:
                failure = error
                await asyncio.sleep(0.05 * 2**attempt)
        logger.error(
            "USAGE NOT RECORDED (%s); all requests are refused until this entry is recorded: %s",
            failure,
            settlement.entry.to_json(),
            extra=about(settlement.entry.request_id),
        )
        if len(self._pending) < _PENDING_MAX:
            self._pending.append(settlement)
            PENDING_SETTLEMENTS.set(len(self._pending))

    def record_bounded(self, entry: UsageEntry, *, later: bool = False) -> None:
        """Record a request that cost nothing, such as a refusal, in the background and at a bounded
        rate.

        Entries beyond the rate are only counted; the next recorded entry, or a second later the
        last one, states their number. With `later` the entry is only counted, because a store is
        unavailable.
        """
        key = entry.token or entry.key_public_id
        admitted, skipped = (False, 0) if later else self._limiter.admit(key)
        if not admitted:
            UNRECORDED.inc()
            if later:
                self._limiter.skip(key)
            self._last_skipped[key] = entry
            return
        self._last_skipped.pop(key, None)
        self.spawn(self.settle(Settlement(_counting(entry, skipped))))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its end, even after the request that caused it is over."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _apply(self, settlement: Settlement) -> None:
        await self._quotas.settle(settlement.entry, units=settlement.units)

    async def _retry(self) -> None:
        while True:
            await asyncio.sleep(_RETRY_S)
            while self._pending:
                try:
                    await self._apply(self._pending[0])
                except (redis.RedisError, OSError):
                    break
                self._pending.popleft()
                PENDING_SETTLEMENTS.set(len(self._pending))
                if not self._pending:
                    logger.warning("All pending usage is recorded; requests run again.")
            if not self._pending:
                await self._record_skipped()

    async def _record_skipped(self) -> None:
        """For each key that exceeded its rate, record its last skipped entry with the number of
        those before it."""
        for key, skipped in self._limiter.left_over().items():
            if (entry := self._last_skipped.pop(key, None)) is None:
                continue
            try:
                await self._apply(Settlement(_counting(entry, skipped - 1)))
            except (redis.RedisError, OSError):
                self._limiter.skip(key, skipped)
                self._last_skipped.setdefault(key, entry)


def _counting(entry: UsageEntry, others: int) -> UsageEntry:
    if not others:
        return entry
    reason = f"{entry.reason} ({others} more were not recorded.)".strip()
    return replace(entry, reason=reason)


class RefusalLimiter:
    """Limits recorded refusals per second, for each key and for all unknown callers together."""

    def __init__(self) -> None:
        self._second = 0
        self._counts: dict[str, int] = {}
        self._skipped: dict[str, int] = {}

    def admit(self, key_public_id: str) -> tuple[bool, int]:
        """Return true if one may be recorded now, and the number skipped since the last one."""
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

    def skip(self, key_public_id: str, count: int = 1) -> None:
        """Count entries that were skipped for another reason than the rate."""
        self._skipped[key_public_id] = self._skipped.get(key_public_id, 0) + count

    def left_over(self) -> dict[str, int]:
        """Return the number of skipped entries by key if no recorded one followed, and reset it."""
        left, self._skipped = self._skipped, {}
        return left
