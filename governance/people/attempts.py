"""Counting failed sign-ins in Redis, so that every web process sees the same count."""

from __future__ import annotations

import functools
import hashlib

import redis
from django.conf import settings

from governance.errors import QuotaExceeded, Unavailable

MAX_FAILURES = 10
WINDOW_S = 15 * 60


@functools.cache
def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)


def _name(email: str, address: str) -> str:
    digest = hashlib.sha256(f"{email}\n{address}".encode()).hexdigest()
    return f"assay:sign-in-failures:{digest[:32]}"


def refuse_when_locked(email: str, address: str) -> None:
    """Count this try, and refuse it when too many before it failed.

    Counting first leaves no gap between check and count for parallel guesses to slip through.

    Raises:
        QuotaExceeded: more than `MAX_FAILURES` in `WINDOW_S` seconds for this e-mail and address.
        Unavailable: Redis does not answer; guessing without a count is not allowed.
    """
    name = _name(email, address)
    try:
        with _client(settings.REDIS_URL).pipeline() as pipe:
            pipe.incr(name)
            pipe.expire(name, WINDOW_S, nx=True)
            pipe.ttl(name)
            count, _, left_s = pipe.execute()
    except redis.RedisError as error:
        raise Unavailable(
            "Signing in is not possible: Redis, which counts failed attempts, does not answer.",
            hint="Check REDIS_URL and that the server runs.",
            retry_after=5,
        ) from error
    if count > MAX_FAILURES:
        raise QuotaExceeded(
            f"Too many failed sign-ins for {email}; try again in {max(1, -(-left_s // 60))} "
            "minutes.",
            code="too_many_attempts",
            retry_after=max(1, left_s),
        )


def forget_failures(email: str, address: str) -> None:
    """A successful sign-in clears the count. Redis away: the count runs out by itself."""
    try:
        _client(settings.REDIS_URL).delete(_name(email, address))
    except redis.RedisError:
        return
