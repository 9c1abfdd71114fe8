"""Requests of the demo to a machine that may be busy: wait, name the call that got no answer, and
retry if that is safe."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

import httpx

# Time limit of one call, including retries.
PATIENCE_S = 300.0
PAUSE_S = 1.0
# Errors before the request was sent, so that a retry is safe.
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class NoAnswer(Exception):
    """A call got no answer in time; the message names the call."""

    def __init__(self, call: str, waited_s: float, reason: str) -> None:
        super().__init__(f"{call} got no answer within {waited_s:.0f} s: {reason}.")


def patient_client(base_url: str, **options: Any) -> httpx.Client:
    """Return a client with the timeout of `patiently`."""
    timeout = httpx.Timeout(PATIENCE_S, connect=10)
    return httpx.Client(base_url=base_url, timeout=timeout, **options)


def patiently(
    client: httpx.Client,
    method: str,
    path: str,
    *,
    again: bool = False,
    patience_s: float = PATIENCE_S,
    **options: Any,
) -> httpx.Response:
    """Send a request until it is answered, for at most `patience_s`.

    A request that was not sent, or that a busy server postponed (503 with `Retry-After`), is sent
    again; a request that the server may have processed, only with `again` (it is idempotent).

    Raises:
        NoAnswer: no answer arrived in time.
    """
    started = time.monotonic()
    call = f"{method} {urlsplit(str(client.base_url)).path.rstrip('/')}/{path.lstrip('/')}"
    while True:
        remaining_s = started + patience_s - time.monotonic()
        for _field, (_name, file) in options.get("files", ()):
            file.seek(0)
        try:
            answer = client.request(
                method,
                path,
                timeout=httpx.Timeout(max(remaining_s, PAUSE_S), connect=10),
                **options,
            )
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            pause = PAUSE_S if again or isinstance(error, _UNSENT) else None
        else:
            wait = answer.headers.get("retry-after", "") if answer.status_code == 503 else ""
            if not wait.isdecimal():
                return answer
            reason, pause = "503, busy", max(float(wait), PAUSE_S)
        waited = time.monotonic() - started
        if pause is None or waited + pause >= patience_s:
            raise NoAnswer(call, waited, reason)
        time.sleep(pause)


def call_of(error: BaseException) -> str:
    """Return the method and path of the request that caused an httpx error, else an empty text."""
    try:
        request: httpx.Request = error.request  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):
        return ""
    return f"{request.method} {request.url.path}"
