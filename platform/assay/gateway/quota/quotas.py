"""Quotas: one call reserves against every limit that applies, one settles exactly once.

The counting is in `governance/quotas/quotas.lua`. Usage travels in the same call as the settlement,
so that neither is recorded without the other. Keys of several limits share one script: one Redis
primary (with replicas if wanted), not a sharded cluster.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import redis
from django.conf import settings

from assay.gateway.monitoring.metrics import BUDGET_ALERT, BUDGET_USED, SHADOWED, STOPPED
from governance.errors import QuotaExceeded, Unavailable
from governance.quotas.kinds import KINDS, THRESHOLDS
from governance.quotas.wire import (
    SCRIPT,
    Amount,
    Argument,
    Limit,
    LimitState,
    Queued,
    Verdict,
    reserve_arguments,
    settle_arguments,
    stop_sentence,
)
from governance.usage.records import UsageEntry

logger = logging.getLogger(__name__)
_ATTEMPTS = 3
# Seconds to wait that a client is told while a deployment's queue is full.
_QUEUE_WAIT_S = 5
# A reservation outlives its request by this much before it is given back, in seconds.
GRACE_S = 60
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Reservation:
    """A reservation. `at` is the moment it is charged to, in seconds since the epoch, None when
    nothing limits it; `headers` are its `x-ratelimit-*` headers; `shadowed` names limits that would
    have stopped it.
    """

    at: float | None = None
    headers: Headers = field(default_factory=list)
    shadowed: list[str] = field(default_factory=list)


class QuotaStopped(QuotaExceeded):
    """A limit has no room. `headers` tell the state of every limit. Of a `budget` there is none for
    hours or days, whatever its clock says: not worth a client's automatic retry.
    """

    def __init__(
        self, message: str, *, limit: Limit, retry_after: float | None, headers: Headers
    ) -> None:
        code = "release_condition" if limit.of_release else None
        super().__init__(message, retry_after=retry_after, code=code)
        self.limit = limit
        self.budget = KINDS[limit.kind].is_budget
        self.headers = [*headers, (b"x-assay-limit", limit.name.encode())]


class QueueFull(Unavailable):
    """As many requests as may wait for the deployment already do; nothing is charged."""

    code = "queue_full"


_DIGEST = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


class Commands(Protocol):
    """The part of a client that runs one command."""

    async def execute_command(self, *command: str | bytes | int | float) -> Any: ...


class Quotas:
    """The script on one Redis."""

    def __init__(self, client: Commands) -> None:
        self._client = client

    async def _script(self, arguments: Sequence[Argument]) -> Any:
        try:
            return await self._client.execute_command("EVALSHA", _DIGEST, 0, *arguments)
        except redis.exceptions.NoScriptError:
            # It did not run, so that it may be sent again.
            await self._client.execute_command("SCRIPT LOAD", SCRIPT)
            return await self._client.execute_command("EVALSHA", _DIGEST, 0, *arguments)

    async def reserve(
        self,
        *,
        entry: UsageEntry,
        limits: Sequence[Limit],
        amount: Amount,
        lifetime_s: float,
        queued: Queued | None = None,
        more: bool = False,
    ) -> Reservation:
        """Reserve one request and `amount` under every limit and send `queued` to the workers, or
        do neither. Leaves `entry` for the ledger, should this process end before it settles the
        request. Limits on other units than that of `amount` do not bind it.

        A message that is empty is not sent yet. With `more`, `amount` is added to what the request
        has reserved before.

        Raises:
            QuotaStopped: a limit has no room.
            QueueFull: too many requests wait for the deployment.
            Unavailable: Redis does not answer, does not take the message, or its counters are being
                rebuilt.
        """
        limits = _counting(limits, amount)
        lifetime_ms = int((lifetime_s + GRACE_S) * 1000)
        arguments = reserve_arguments(
            entry.request_id,
            lifetime_ms,
            amount,
            limits,
            entry.encode(),
            queued,
            operation="reserve_more" if more else "reserve",
        )
        verdict, headers = await self._room(arguments, limits, amount, entry.deployment)
        over = [one for one, state in zip(limits, verdict.states, strict=True) if state.over]
        for one in over:
            SHADOWED.labels(one.kind).inc()
        at = verdict.at_ms / 1000 if limits else None
        return Reservation(at, headers, [one.name for one in over])

    async def check_room(
        self, *, deployment: str, limits: Sequence[Limit], amount: Amount, queue: str, most: int
    ) -> None:
        """Raise as `reserve` would now; reserve and send nothing."""
        limits = _counting(limits, amount)
        queued = Queued(queue, b"", most)
        arguments = reserve_arguments("", 0, amount, limits, queued=queued, operation="check_room")
        await self._room(arguments, limits, amount, deployment)

    async def _room(
        self,
        arguments: Sequence[Argument],
        limits: Sequence[Limit],
        amount: Amount,
        deployment: str,
    ) -> tuple[Verdict, Headers]:
        """Return the script's answer, and the headers that tell of it. Raises as `reserve`."""
        try:
            text: bytes = await self._script(arguments)
        except (redis.RedisError, OSError) as error:
            raise Unavailable(
                "The quota store does not answer, so requests are refused.", retry_after=2
            ) from error
        verdict = Verdict.read(text, limits)
        if not verdict.ready:
            raise Unavailable(
                "Budgets are being rebuilt from the ledger, so requests are refused.",
                retry_after=2,
            )
        if verdict.full:
            raise QueueFull(
                f"{deployment} has too many waiting requests; nothing was charged.",
                retry_after=_QUEUE_WAIT_S,
            )
        if not verdict.taken:
            raise Unavailable(
                "The broker does not take requests; nothing was charged.", retry_after=2
            )
        headers = _headers(limits, verdict.states)
        if verdict.stopped is not None:
            raise _stopped(verdict.stopped, verdict.wait_ms, amount, headers)
        return verdict, headers

    async def send_again(self, queued: Queued) -> None:
        """Send a request that was reserved before to the workers once more.

        Raises:
            redis.RedisError, OSError: Redis does not answer, or does not take it.
        """
        await self._client.execute_command("LPUSH", queued.queue, queued.message)

    async def withdraw(self, request_id: str, *, counts: bool = False) -> None:
        """Forget an admission whose request never runs, such as one whose reservation may have
        arrived although no answer came. It `counts` as a request on limits per minute, or not. If
        Redis stays away, the controller settles it as one that failed.
        """
        for attempt in range(_ATTEMPTS):
            try:
                await self._script(["withdraw", request_id, int(counts)])
                return
            except (redis.RedisError, OSError) as error:
                logger.warning("Request %s could not be withdrawn: %s", request_id, error)
                await asyncio.sleep(2**attempt)

    async def measure(self, limits: Sequence[Limit]) -> None:
        """Bring the gauges of budgets up to date; keys have none, for there is no end of them.

        Raises:
            redis.RedisError, OSError: Redis does not answer.
        """
        budgets = [
            limit
            for limit in limits
            if KINDS[limit.kind].is_budget and not limit.subject.startswith("key:") and limit.limit
        ]
        arguments = [part for limit in budgets for part in (limit.subject, limit.kind)]
        text: bytes = await self._script(["read", *arguments])
        used = [int(number) for number in text.split()][2::4]
        BUDGET_USED.clear()
        BUDGET_ALERT.clear()
        for limit, amount in zip(budgets, used, strict=True):
            ratio = amount / limit.bound
            reached = max((t for t in THRESHOLDS if 100 * ratio >= t), default=0)
            BUDGET_USED.labels(limit.subject, limit.kind).set(ratio)
            BUDGET_ALERT.labels(limit.subject, limit.kind).set(reached)

    async def settle(self, entry: UsageEntry, *, units: int = 0) -> bool:
        """Replace the reservation by what was used and record `entry`. True the first time.

        Raises:
            redis.RedisError, OSError: Redis does not answer; calling again is safe.
        """
        arguments = settle_arguments(entry, units=units)
        return bool(await self._script(arguments))


class DeviceTimes:
    """Time that a unit (a token, an image) takes on each deployment's device, as this process has
    seen it lately."""

    def __init__(self) -> None:
        self._ms_per_unit: dict[str, float] = {}

    def expect(self, deployment: str, units: int) -> int:
        """Return the device time to reserve for a request of up to so many units, in ms."""
        return max(1, round(units * self._ms_per_unit.get(deployment, 0.0)))

    def learn(self, deployment: str, units: int, device_ms: int) -> None:
        """A request has ended."""
        if units <= 0 or device_ms <= 0:
            return
        seen = device_ms / units
        known = self._ms_per_unit.get(deployment, seen)
        self._ms_per_unit[deployment] = known + 0.1 * (seen - known)


def _counting(limits: Sequence[Limit], amount: Amount) -> list[Limit]:
    return [limit for limit in limits if KINDS[limit.kind].counts(amount.unit)]


def _stopped(limit: Limit, wait_ms: int, amount: Amount, headers: Headers) -> QuotaStopped:
    STOPPED.labels(limit.kind).inc()
    return QuotaStopped(
        stop_sentence(limit, wait_ms, amount.of(limit.kind), settings.CURRENCY),
        limit=limit,
        retry_after=None if wait_ms < 0 else wait_ms / 1000,
        headers=headers,
    )


def _headers(limits: Sequence[Limit], states: Sequence[LimitState]) -> Headers:
    """`x-ratelimit-*` of the per-minute limit of each family that has the least left."""
    tightest: dict[str, tuple[int, int, int]] = {}
    for limit, state in zip(limits, states, strict=True):
        family = KINDS[limit.kind].family
        if not family or limit.shadow:
            continue
        known = tightest.get(family)
        if known is None or state.remaining < known[1]:
            tightest[family] = (limit.limit, state.remaining, state.reset_ms)
    headers = []
    for family, values in tightest.items():
        shown: tuple[Any, ...] = (values[0], values[1], f"{values[2]}ms")
        for name, value in zip(("limit", "remaining", "reset"), shown, strict=True):
            headers.append((f"x-ratelimit-{name}-{family}".encode(), str(value).encode()))
    return headers
