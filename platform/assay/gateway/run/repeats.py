"""`Idempotency-Key` under `/v1`: an answered request is not run a second time.

Answers are not stored and so cannot be repeated; if the key is sent again, the error names the
request that was answered. A request that is refused, fails or is canceled frees its key, so that a
retry runs it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio

from assay.gateway.access.call import Call
from assay.gateway.http.asgi import Scope, header
from governance.errors import InvalidInput, Unavailable, WrongState

logger = logging.getLogger(__name__)

PREFIX = "assay:repeats:"
# Period for which the key of an answered request is remembered, in seconds.
RETENTION_S = 3600
# Period after which the key of a running request expires unless renewed, in seconds: a large file
# takes hours to arrive, but a killed process must not keep the key.
HELD_S = 60.0
# A running request renews its key this many times in `HELD_S`.
_RENEWALS = 3
# Renews a key if it still belongs to the request; a time of 0 removes it.
_RENEW = """
if redis.call("GET", KEYS[1]) == ARGV[1] then return redis.call("PEXPIRE", KEYS[1], ARGV[2]) end
return 0
"""
_FORM = re.compile(rb"[\x21-\x7e]{1,255}")
_ANSWERED = b"answered "


@asynccontextmanager
async def once(client: redis.asyncio.Redis, call: Call, scope: Scope) -> AsyncIterator[None]:
    """Guard the answer to a request so that its idempotency key is used only once.

    Raises:
        InvalidInput: the key is not 1 to 255 printable ASCII characters.
        WrongState: a request with this key was answered or is running.
        Unavailable: Redis does not answer.
    """
    key = header(scope, b"idempotency-key")
    if key is None or scope["method"] != "POST" or call.key is None:
        yield
        return
    if _FORM.fullmatch(key) is None:
        raise InvalidInput(
            "Idempotency-Key is not valid: 1 to 255 printable ASCII characters without spaces."
        )
    owner = call.key.recorded_as if call.key.person is None else f"person {call.key.person}"
    name = PREFIX + hashlib.sha256(b"%s\n%s" % (owner.encode(), key)).hexdigest()
    await _take(client, call, name)
    renewal = asyncio.create_task(_hold(client, call, name))
    answered = False
    try:
        yield
        answered = call.outcome == "ok"
    finally:
        renewal.cancel()
        await _leave(client, call, name, answered=answered)


async def _take(client: redis.asyncio.Redis, call: Call, name: str) -> None:
    try:
        mine = call.request_id.encode()
        if await client.set(name, mine, nx=True, px=int(HELD_S * 1000)):
            return
        value: Any = await client.get(name)
        other: bytes = value or b""
    except (redis.RedisError, OSError) as error:
        raise Unavailable("The Idempotency-Key cannot be looked up now.", retry_after=2) from error
    if other.startswith(_ANSWERED):
        request = other.removeprefix(_ANSWERED).decode()
        raise WrongState(
            f"A request with this Idempotency-Key was already answered: {request}.",
            code="idempotency_answered",
            hint="Answers are not stored. Use a new key for a new request.",
        )
    raise WrongState(
        "A request with this Idempotency-Key is still running.",
        code="idempotency_in_progress",
        hint="Wait for its answer, or send this again shortly.",
        retry_after=1,
    )


async def _hold(client: redis.asyncio.Redis, call: Call, name: str) -> None:
    while True:
        await asyncio.sleep(HELD_S / _RENEWALS)
        try:
            await _renew(client, call, name, HELD_S)
        except (redis.RedisError, OSError) as error:
            logger.warning("The Idempotency-Key was not renewed: %s", error)


async def _renew(client: redis.asyncio.Redis, call: Call, name: str, seconds: float) -> None:
    script = client.register_script(_RENEW)
    await script(keys=[name], args=[call.request_id, int(seconds * 1000)])


async def _leave(client: redis.asyncio.Redis, call: Call, name: str, *, answered: bool) -> None:
    try:
        if answered:
            await client.set(name, _ANSWERED + call.request_id.encode(), ex=RETENTION_S)
        else:
            await _renew(client, call, name, 0)
    except (redis.RedisError, OSError) as error:
        # The key stays taken until it expires.
        logger.warning("The Idempotency-Key was not released: %s", error)
