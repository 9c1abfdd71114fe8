"""Quotas: one call reserves against every limit that applies, one settles exactly once.

The counting is in `quotas.lua`. Usage travels in the same call as the settlement, so that neither
is recorded without the other. Keys of several limits share one script: one Redis primary (with
replicas if wanted), not a sharded cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.asyncio

from assay.gateway.errors import RETRY_PATIENCE_S
from governance.errors import QuotaExceeded, Unavailable
from governance.usage.records import USAGE_STREAM

SCRIPT = (Path(__file__).parent / "quotas.lua").read_text(encoding="utf-8")
_WORDS = {
    "requests_per_minute": "{limit} requests per minute",
    "tokens_per_minute": "{limit} tokens per minute",
    "concurrent_requests": "{limit} requests at the same time",
    "tokens_per_day": "{limit} tokens per day",
}
_FAMILY = {"requests_per_minute": "requests", "tokens_per_minute": "tokens"}
# A reservation outlives its request by this much before it is given up, in seconds.
GRACE_S = 60


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit. `subject` is `key:<id>` or `department:<id>`, `title` its name for people."""

    subject: str
    title: str
    kind: str
    limit: int

    @property
    def store_key(self) -> str:
        return f"assay:quota:{self.kind}:{self.subject}"


@dataclass(frozen=True, slots=True)
class Reservation:
    """What was reserved, and the `x-ratelimit-*` headers that tell of it."""

    request_id: str
    tokens: int
    headers: list[tuple[bytes, bytes]]


class QuotaStopped(QuotaExceeded):
    """A limit has no room. `headers` tell the state of every limit."""

    def __init__(
        self, message: str, *, retry_after: float | None, headers: list[tuple[bytes, bytes]]
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.headers = headers


class Quotas:
    """The script on one Redis."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._script = client.register_script(SCRIPT)

    async def reserve(
        self, *, request_id: str, limits: Sequence[Limit], tokens: int, lifetime_s: float
    ) -> Reservation:
        """Reserve one request and `tokens` tokens under every limit, or under none.

        Raises:
            QuotaStopped: a limit has no room.
            Unavailable: Redis does not answer.
        """
        if not limits:
            return Reservation(request_id, tokens, [])
        arguments: list[str | int] = ["reserve", request_id, tokens]
        arguments.append(int((lifetime_s + GRACE_S) * 1000))
        for limit in limits:
            arguments += (limit.store_key, limit.kind, limit.limit)
        try:
            text: bytes = await self._script(keys=(), args=arguments)
        except (redis.RedisError, OSError) as error:
            raise Unavailable(
                "The quota store does not answer, so no request is let through.", retry_after=2
            ) from error
        answer = [int(number) for number in text.split()]
        headers = _headers(limits, answer[2:])
        if answer[0]:
            raise _stopped(limits[answer[0] - 1], answer[1], tokens, headers)
        return Reservation(request_id, tokens, headers)

    async def settle(
        self, *, request_id: str, tokens: int, entry: str = "", refund: bool = False
    ) -> bool:
        """Replace the reservation by what was used and record `entry`. True the first time.

        Raises:
            redis.RedisError, OSError: Redis does not answer; calling again is safe.
        """
        return bool(
            await self._script(
                keys=(), args=["settle", request_id, tokens, int(refund), USAGE_STREAM, entry]
            )
        )


def _stopped(
    limit: Limit, wait_ms: int, tokens: int, headers: list[tuple[bytes, bytes]]
) -> QuotaStopped:
    words = _WORDS[limit.kind].format(limit=f"{limit.limit:,}")
    if wait_ms < 0:
        asked = "one request" if "requests" in limit.kind else f"up to {tokens:,} tokens"
        return QuotaStopped(
            f"{limit.title} is limited to {words}; this request needs {asked} and never fits.",
            retry_after=None,
            headers=headers,
        )
    wait_s = wait_ms / 1000
    when = f"in {wait_s:.0f} s" if wait_s <= 2 * RETRY_PATIENCE_S else f"in {wait_s / 60:.0f} min"
    return QuotaStopped(
        f"{limit.title} is limited to {words}, and this request needs more than what is left; "
        f"there is room again {when}.",
        retry_after=wait_s,
        headers=headers,
    )


def _headers(limits: Sequence[Limit], states: Sequence[int]) -> list[tuple[bytes, bytes]]:
    """`x-ratelimit-*` of the per-minute limit of each family that has the least left."""
    tightest: dict[str, tuple[int, int, int]] = {}
    for position, limit in enumerate(limits):
        family = _FAMILY.get(limit.kind)
        if family is None:
            continue
        remaining, reset_ms = states[2 * position], states[2 * position + 1]
        known = tightest.get(family)
        if known is None or remaining < known[1]:
            tightest[family] = (limit.limit, remaining, reset_ms)
    headers = []
    for family, values in tightest.items():
        shown: tuple[Any, ...] = (values[0], values[1], f"{values[2]}ms")
        for name, value in zip(("limit", "remaining", "reset"), shown, strict=True):
            headers.append((f"x-ratelimit-{name}-{family}".encode(), str(value).encode()))
    return headers
