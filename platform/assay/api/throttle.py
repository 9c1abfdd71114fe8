"""A bound on guessing passwords, counted in Redis so that it holds over every web process."""

from __future__ import annotations

import hashlib

import redis
from django.conf import settings

from governance.errors import QuotaExceeded

WINDOW_S = 60
PER_EMAIL = 10
PER_ADDRESS = 100


def throttle_sign_in(*, email: str, address: str) -> None:
    """Count one attempt; the same for an e-mail address that nobody has.

    Raises:
        QuotaExceeded: too many within a minute, from this address or for this e-mail address.
        redis.RedisError: it cannot be counted, so it is not allowed.
    """
    person = hashlib.sha256(email.strip().lower().encode()).hexdigest()[:32]
    client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2)
    try:
        for name, limit in ((f"email:{person}", PER_EMAIL), (f"address:{address}", PER_ADDRESS)):
            key = f"assay:sign-in:{name}"
            with client.pipeline() as pipeline:
                pipeline.set(key, 0, ex=WINDOW_S, nx=True)
                pipeline.incr(key)
                pipeline.ttl(key)
                _, count, left = pipeline.execute()
            if count > limit:
                raise QuotaExceeded(
                    "Too many attempts to sign in; this one was not looked at.",
                    code="too_many_attempts",
                    hint=f"Wait {left} s.",
                    retry_after=max(1, left),
                )
    finally:
        client.close()
