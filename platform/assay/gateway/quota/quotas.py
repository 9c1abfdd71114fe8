"""Quotas: one call reserves against every limit that applies, another settles exactly once.

`governance/quotas/quotas.lua` does the counting. Usage is sent in the same call as the settlement,
so that neither is recorded without the other. One script uses the keys of several limits, which
requires one Redis primary (replicas are fine), not a sharded cluster.
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
from assay.gateway.quota.backlogs import Backlogs
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
    advance_arguments,
    requeue_arguments,
    reserve_arguments,
    settle_arguments,
    stop_sentence,
)
from governance.usage.records import UsageEntry
from workers.request_logs import about

logger = logging.getLogger(__name__)
_ATTEMPTS = 3
# Retry-After while a deployment's queue is full, in seconds.
_QUEUE_WAIT_S = 5
# Period after a request's time limit at which its reservation is released, in seconds.
GRACE_S = 60
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Reservation:
    """A reservation, made `at_ms` by the clock of Redis. `at` is the time that it is charged to, in
    seconds since the epoch, or None without limits; `headers` are its `x-ratelimit-*` headers;
    `shadowed` names shadow limits that would have stopped it.
    """

    at_ms: int
    at: float | None = None
    headers: Headers = field(default_factory=list)
    shadowed: list[str] = field(default_factory=list)


class QuotaStopped(QuotaExceeded):
    """A limit has no room. `headers` describe every limit. A `budget` may have no room for hours or
    days, so a client should not retry automatically.
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
    """The maximum number of requests already waits for the deployment; nothing is charged."""

    code = "queue_full"


_DIGEST = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


class Commands(Protocol):
    """The part of a client that runs one command."""

    async def execute_command(self, *command: str | bytes | int | float) -> Any: ...


class Quotas:
    """The script on one Redis."""

    def __init__(self, client: Commands) -> None:
        self._client = client
        self.backlogs = Backlogs(self._advance)

    async def _advance(self, queue: str) -> int:
        return int(await self._script(advance_arguments(queue)))

    async def _script(self, arguments: Sequence[Argument]) -> Any:
        try:
            return await self._client.execute_command("EVALSHA", _DIGEST, 0, *arguments)
        except redis.exceptions.NoScriptError:
            # The script did not run, so it is safe to send it again.
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
        do neither. Stores `entry` for the ledger, in case this process ends before it settles the
        request. Limits in other units than that of `amount` do not apply.

        An empty message is not sent yet. With `more`, `amount` is added to an earlier reservation
        of the request.

        Raises:
            QuotaStopped: a limit has no room.
            QueueFull: too many requests wait for the deployment.
            Unavailable: Redis does not answer or accept the message, or its counters are being
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
        if queued is not None and verdict.waiting:
            self.backlogs.note(queued.queue)
        over = [limit for limit, state in zip(limits, verdict.states, strict=True) if state.over]
        for limit in over:
            SHADOWED.labels(limit.kind).inc()
        at = verdict.at_ms / 1000 if limits else None
        return Reservation(verdict.at_ms, at, headers, [limit.name for limit in over])

    async def check_room(
        self, *, deployment: str, limits: Sequence[Limit], amount: Amount, queued: Queued
    ) -> None:
        """Raise as `reserve` would now, but reserve and send nothing."""
        limits = _counting(limits, amount)
        arguments = reserve_arguments("", 0, amount, limits, queued=queued, operation="check_room")
        await self._room(arguments, limits, amount, deployment)

    async def _room(
        self,
        arguments: Sequence[Argument],
        limits: Sequence[Limit],
        amount: Amount,
        deployment: str,
    ) -> tuple[Verdict, Headers]:
        """Return the script's answer and the headers for it. Raises as `reserve`."""
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
                f"{deployment} has too many waiting requests, or your department has its share of "
                "them; nothing was charged.",
                retry_after=_QUEUE_WAIT_S,
            )
        if not verdict.accepted:
            raise Unavailable(
                "The broker does not take requests; nothing was charged.", retry_after=2
            )
        headers = _headers(limits, verdict.states)
        if verdict.stopped is not None:
            raise _stopped(verdict.stopped, verdict.wait_ms, amount, headers)
        return verdict, headers

    async def send_again(self, queued: Queued) -> None:
        """Send a reserved request to the workers once more.

        Raises:
            redis.RedisError, OSError: Redis does not answer or accept it.
        """
        waiting = int(await self._script(requeue_arguments(queued)))
        if waiting < 0:
            raise redis.ResponseError(f"{queued.queue} is not a queue.")
        if waiting:
            self.backlogs.note(queued.queue)

    async def expire(self, queue: str, seconds: int) -> None:
        """Let a queue end that nothing takes from. Raises as `send_again`."""
        await self._client.execute_command("EXPIRE", queue, seconds)

    async def take_back(self, queued: Queued) -> bool:
        """Remove a message from its queue; return false if a worker has taken it. Raises as
        `send_again`.
        """
        return bool(await self._client.execute_command("LREM", queued.queue, 1, queued.message))

    async def withdraw(self, request_id: str, *, counts: bool = False) -> None:
        """Release the reservation of a request that will not run, including one that Redis may have
        made without answering. With `counts`, it counts as a request on limits per minute. If Redis
        stays unavailable, the controller settles it as failed.
        """
        for attempt in range(_ATTEMPTS):
            try:
                await self._script(["withdraw", request_id, int(counts)])
                return
            except (redis.RedisError, OSError) as error:
                logger.warning(
                    "Request %s could not be withdrawn: %s",
                    request_id,
                    error,
                    extra=about(request_id),
                )
                await asyncio.sleep(2**attempt)

    async def measure(self, limits: Sequence[Limit]) -> None:
        """Update the gauges of budgets, except those of keys, whose number is unlimited.

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
        """Replace the reservation by the actual use and record `entry`. True the first time.

        Raises:
            redis.RedisError, OSError: Redis does not answer; calling again is safe.
        """
        arguments = settle_arguments(entry, units=units)
        return bool(await self._script(arguments))


class DeviceTimes:
    """Moving average of the device time per unit (a token, an image) of each deployment, measured
    by this process."""

    def __init__(self) -> None:
        self._ms_per_unit: dict[str, float] = {}

    def expect(self, deployment: str, units: int) -> int:
        """Return the device time to reserve for a request of up to `units`, in ms."""
        return max(1, round(units * self._ms_per_unit.get(deployment, 0.0)))

    def learn(self, deployment: str, units: int, device_ms: int) -> None:
        """Update the average with a request that has ended."""
        if units <= 0 or device_ms <= 0:
            return
        measured = device_ms / units
        average = self._ms_per_unit.get(deployment, measured)
        self._ms_per_unit[deployment] = average + 0.1 * (measured - average)


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
    """Return `x-ratelimit-*` headers of the tightest per-minute limit of each family."""
    tightest: dict[str, tuple[int, int, int]] = {}
    for limit, state in zip(limits, states, strict=True):
        family = KINDS[limit.kind].family
        if not family or limit.shadow:
            continue
        current = tightest.get(family)
        if current is None or state.remaining < current[1]:
            tightest[family] = (limit.limit, state.remaining, state.reset_ms)
    headers = []
    for family, values in tightest.items():
        texts: tuple[Any, ...] = (values[0], values[1], f"{values[2]}ms")
        for name, value in zip(("limit", "remaining", "reset"), texts, strict=True):
            headers.append((f"x-ratelimit-{name}-{family}".encode(), str(value).encode()))
    return headers
