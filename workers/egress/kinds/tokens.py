"""Access tokens, which all requests share and which are renewed before they expire."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from workers.egress.credentials import credential_unavailable
from workers.engines.protocol import RequestRefused

logger = logging.getLogger(__name__)
# Sends a POST to a URL with headers and body; returns status and body. It bounds time and size, and
# raises RequestRefused if the endpoint cannot be reached.
Fetch = Callable[[str, Mapping[str, str], bytes], Awaitable[tuple[int, bytes]]]

FETCH_S = 15.0
# Within this time after a failure, requests get the same error and do not flood the endpoint.
PAUSE_S = 2.0
# A token is renewed when this fraction of its life is left, but at most this long before its end.
RENEWED_FRACTION, RENEWED_S = 0.2, 300.0
# Life of a token whose endpoint states none, and the longest life that is believed.
DEFAULT_LIFE_S, LONGEST_LIFE_S = 300.0, 86_400.0
TOKEN_MAX = 16_384
_FORM = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
_ERROR = re.compile(r"[a-z_]{1,40}")
_TOKEN = re.compile(rf"[\x21-\x7e]{{1,{TOKEN_MAX}}}")


@dataclass(frozen=True, slots=True)
class Token:
    """An access token that expires `life_s` seconds after `requested_at`, a monotonic time."""

    value: str = field(repr=False)
    life_s: float
    requested_at: float

    @property
    def expires_at(self) -> float:
        return self.requested_at + self.life_s

    @property
    def renewed_at(self) -> float:
        return self.expires_at - min(self.life_s * RENEWED_FRACTION, RENEWED_S)


class Tokens:
    """Keeps one token. One event loop uses it."""

    def __init__(self, fetch: Callable[[], Awaitable[Token]]) -> None:
        self._fetch = fetch
        self._token: Token | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._failure: RequestRefused | None = None
        self._failed_at = float("-inf")

    async def value(self) -> str:
        """Return a valid token. While it is renewed, requests use the previous one.

        Raises:
            RequestRefused: no valid token is available (`credential_unavailable`, 503).
        """
        now = time.monotonic()
        token = self._token
        if token is None or now >= token.renewed_at:
            renewal = self._renew(now)
            if token is None or now >= token.expires_at:
                if renewal is not None:
                    # A canceled request does not end the renewal that others wait for.
                    await asyncio.shield(renewal)
                token = self._token
        if token is None or time.monotonic() >= token.expires_at:
            failure = self._failure
            raise credential_unavailable(
                str(failure) if failure is not None else "There is no valid token."
            )
        return token.value

    def _renew(self, now: float) -> asyncio.Task[None] | None:
        """Return the running renewal, or start one; None within `PAUSE_S` after a failure."""
        if self._renewal is None and now - self._failed_at >= PAUSE_S:
            self._renewal = asyncio.get_running_loop().create_task(self._run())
        return self._renewal

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(FETCH_S):
                self._token = await self._fetch()
            self._failure = None
        except RequestRefused as error:
            self._fail(error)
        except TimeoutError:
            self._fail(credential_unavailable("The token endpoint does not answer."))
        except Exception:
            # The traceback has no secret: it does not show values of variables.
            logger.exception("A token could not be renewed")
            self._fail(credential_unavailable("The token could not be renewed."))
        finally:
            self._renewal = None

    def _fail(self, error: RequestRefused) -> None:
        self._failure, self._failed_at = error, time.monotonic()


async def token_request(fetch: Fetch, url: str, form: Mapping[str, str], *, hint: str) -> Token:
    """Request a token and return it. `hint` is appended to the error for a refused grant.

    Raises:
        RequestRefused: the endpoint refuses, or its answer is malformed.
    """
    host = urlsplit(url).hostname
    requested_at = time.monotonic()
    status, body = await fetch(url, _FORM, urlencode(form).encode())
    answer = _object(body)
    if status != 200:
        # The description of an error may repeat what was sent.
        code = answer.get("error")
        code = code if isinstance(code, str) and _ERROR.fullmatch(code) else ""
        advice = f" {hint}" if code in ("invalid_grant", "invalid_client") else ""
        raise credential_unavailable(
            f"The token endpoint {host} answered with status {status}"
            f"{f' ({code})' if code else ''}.{advice}"
        )
    token, kind = answer.get("access_token"), answer.get("token_type", "Bearer")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise credential_unavailable(f"The answer of the token endpoint {host} has no token.")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise credential_unavailable(f"The token endpoint {host} gives no bearer tokens.")
    return Token(token, _life(answer.get("expires_in")), requested_at)


def _object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _life(stated: Any) -> float:
    """Return the life of a token in seconds. Some endpoints state it as text."""
    try:
        seconds = float(stated)
    except (TypeError, ValueError, OverflowError):
        return DEFAULT_LIFE_S
    # Also for a value that is not a number, which compares as false.
    return min(seconds, LONGEST_LIFE_S) if seconds >= 1 else DEFAULT_LIFE_S
