"""One exchange with a provider: an authenticated request, and the head of its answer."""

from __future__ import annotations

import asyncio

from workers.egress.connections import Answer, ProviderFailed, Route
from workers.egress.credentials import Credential
from workers.engines.hosted.failures import status_failure
from workers.engines.hosted.shapes import MAX_ANSWER, Call, Reader
from workers.wire import Delta

# Maximum size and time of the body of an error.
_MAX_ERROR, _ERROR_S = 65_536, 10.0
# Larger answers are read in a thread, so that they delay the streams of the event loop less.
_LARGE = 1024 * 1024


async def send(
    route: Route, call: Call, body: bytes, credential: Credential | None, *, within_s: float
) -> Answer:
    """Send a call; return its answer with status 200. The caller closes it.

    Raises:
        RequestRefused: the credential is not valid, the provider cannot be reached, or it answers
            with another status.
    """
    headers = {"Content-Type": "application/json", **call.headers}
    if credential is not None:
        headers |= await credential.headers("POST", route.url(call.path), body)
    answer = await route.send("POST", call.path, body=body, headers=headers, first_byte_s=within_s)
    if answer.status == 200:
        return answer
    try:
        raise await _failure(answer)
    finally:
        answer.close()


async def read_whole(call: Call, answer: Answer, reader: Reader) -> list[Delta]:
    """Read an answer that is not streamed; return its pieces.

    Raises:
        ProviderFailed: it is too large, malformed, or of another media type than the call accepts.
    """
    if call.accepts and answer.content_type not in call.accepts:
        # Such an answer is most likely an error with status 200.
        stated = answer.content_type[:80] or "none"
        raise ProviderFailed(
            f"The provider sent a body of type {stated}; {' or '.join(sorted(call.accepts))} was "
            "expected."
        )
    body = await answer.read(call.most)
    if len(body) > _LARGE:
        return await asyncio.to_thread(reader.whole, body)
    return reader.whole(body)


async def listed_models(
    route: Route, credential: Credential | None, headers: dict[str, str], *, within_s: float
) -> bytes | None:
    """Return the body of the provider's list of models; None if it has no list.

    Raises:
        RequestRefused: the credential is not valid, or the provider cannot be reached.
    """
    if credential is not None:
        headers = headers | dict(await credential.headers("GET", route.url("/models"), b""))
    answer = await route.send("GET", "/models", headers=headers, first_byte_s=within_s)
    try:
        return await answer.read(MAX_ANSWER) if answer.status == 200 else None
    finally:
        answer.close()


async def _failure(answer: Answer) -> ProviderFailed:
    """Return the failure of an answer with an error's status."""
    body = b""
    try:
        async with asyncio.timeout(_ERROR_S):
            body = await answer.read(_MAX_ERROR)
    except (TimeoutError, ProviderFailed):
        pass  # The status suffices.
    return status_failure(answer.status, body, answer.retry_after_s)
