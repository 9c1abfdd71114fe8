"""Synchronous access to the counters, for all processes except the gateway."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import redis
from django.conf import settings

from governance.errors import Unavailable
from governance.quotas.wire import (
    SCRIPT,
    Amount,
    Argument,
    Limit,
    Verdict,
    hold_arguments,
    lower_arguments,
    settle_arguments,
)
from governance.usage.records import UsageEntry

TIMEOUT_S = 2


@dataclass(frozen=True, slots=True)
class Count:
    """A counter, in counted units. `stops` is the number of requests without room today."""

    used: int
    reserved: int
    reset_ms: int
    stops: int

    def left_of(self, limit: int) -> int:
        """Return the unused and unreserved part of a limit in counted units."""
        return max(0, limit - self.used - self.reserved)


@dataclass(frozen=True, slots=True)
class Reading:
    """Snapshot of the counters. Not `ready` while days and months are rebuilt from the ledger."""

    ready: bool
    at_ms: int
    counts: list[Count]


@functools.cache
def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(
        url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=None
    )


def client() -> redis.Redis:
    """Return the process's client, with its connection pool."""
    return _client(settings.REDIS_URL)


def _run(arguments: Sequence[Argument]) -> bytes:
    try:
        answer: bytes = client().register_script(SCRIPT)(keys=(), args=list(arguments))
    except (redis.RedisError, OSError) as error:
        raise Unavailable("The quota store does not answer.", retry_after=2) from error
    return answer


def read_counts(subjects_and_kinds: Sequence[tuple[str, str]]) -> Reading:
    """Return the counters of these subjects and kinds, in the same order.

    Raises:
        Unavailable: Redis does not answer.
    """
    arguments: list[Argument] = ["read"]
    for subject, kind in subjects_and_kinds:
        arguments += (subject, kind)
    ready, at_ms, *numbers = (int(number) for number in _run(arguments).split())
    counts = [Count(*numbers[i : i + 4]) for i in range(0, len(numbers), 4)]
    return Reading(ready == 1, at_ms, counts)


def hold(amount: Amount, subjects: Sequence[str], limits: Sequence[Limit]) -> Verdict:
    """Check `limits` and hold `amount` on all subjects, or on none.

    Raises:
        Unavailable: Redis does not answer; the amount may or may not be held.
    """
    return Verdict.read(_run(hold_arguments(amount, subjects, limits)), limits)


def lower(amount: Amount, made_at: datetime, subjects: Sequence[str]) -> None:
    """Release `amount`, a part of the amount held on `subjects` since `made_at`.

    Raises:
        Unavailable: Redis does not answer.
    """
    _run(lower_arguments(amount, made_at, subjects))


def settle(entry: UsageEntry, *, reserved: Amount) -> bool:
    """Count a use and release its reservation. Return True the first time.

    Raises:
        Unavailable: Redis does not answer; calling again is safe.
    """
    return bool(int(_run(settle_arguments(entry, reserved=reserved))))


def unsettled(most: int = 100) -> list[tuple[str, bytes]]:
    """Return admitted requests that were not settled in time: ID and usage entry of each.

    Raises:
        Unavailable: Redis does not answer.
    """
    flat: Any = _run(["unsettled", most])
    return [(flat[i].decode(), flat[i + 1]) for i in range(0, len(flat), 2)]


def withdraw(request_id: str) -> None:
    """Delete an admission, and release its reservation.

    Raises:
        Unavailable: Redis does not answer.
    """
    _run(["withdraw", request_id])


def reclaim(most: int = 1000) -> int:
    """Release reservations of requests that were never settled; return their number.

    Raises:
        Unavailable: Redis does not answer.
    """
    return int(_run(["reclaim", most]))
