"""Sender of JSON or CEF lines in the body of a POST. A 2xx response means acceptance."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence

import httpx

from governance.audit.streaming.destinations import AUTHORIZATIONS, Destination
from governance.audit.streaming.ocsf import PRODUCT_VERSION
from governance.audit.streaming.sending import (
    ANSWER_S,
    CONNECT_S,
    BatchRefused,
    SendFailed,
    failure_words,
    tls_context,
)

ANSWER_BYTES_MAX = 64 * 1024
RETRY_AFTER_MAX_S = 300.0
# Statuses with which a receiver rejects the content of a batch.
REFUSING = frozenset({400, 413, 422})
WORDS = {
    401: "does not accept the token",
    403: "does not accept the token",
    404: "has no collector at that path",
    405: "does not accept POST at that path",
    408: "did not receive the batch in time",
    415: "does not accept this content type",
    429: "limits the rate",
}


class HttpsSender:
    """Sender with one connection that stays open between batches.

    Each exchange is a task of an event loop, because only a task has a limit on its total time:
    httpx limits each read, and a slow receiver can stay below that limit forever.
    """

    def __init__(self, destination: Destination) -> None:
        self._to = destination
        self._loop: asyncio.Runner | None = None
        self._client: httpx.AsyncClient | None = None

    def send(self, lines: Sequence[bytes]) -> None:
        body = b"".join(line + b"\n" for line in lines)
        headers = self._headers()
        if self._to.gzip:
            body = gzip.compress(body, 6)
            headers["Content-Encoding"] = "gzip"
        try:
            answer = self._post(body, headers)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            self.close()
            raise SendFailed(f"{self._to.address}: {failure_words(error)}.") from None
        self._judge(answer)

    def close(self) -> None:
        loop, client, self._loop, self._client = self._loop, self._client, None, None
        if loop is not None and client is not None:
            with loop:
                loop.run(client.aclose())

    def _post(self, body: bytes, headers: dict[str, str]) -> httpx.Response:
        """Return the answer; at most `ANSWER_BYTES_MAX` of its body are read, in bounded time."""
        if self._loop is None or self._client is None:
            self._client = self._new_client()
            self._loop = asyncio.Runner()
        return self._loop.run(self._exchange(self._client, body, headers))

    async def _exchange(
        self, client: httpx.AsyncClient, body: bytes, headers: dict[str, str]
    ) -> httpx.Response:
        answer = None
        try:
            async with asyncio.timeout(ANSWER_S):
                request = client.build_request("POST", self._to.url, content=body, headers=headers)
                answer = await client.send(request, stream=True)
                read = 0
                async for chunk in answer.aiter_raw():
                    read += len(chunk)
                    if read > ANSWER_BYTES_MAX:
                        # The status is known; closing the answer closes the connection.
                        break
        except (TimeoutError, httpx.TimeoutException):
            if answer is None:
                raise
        finally:
            if answer is not None:
                await answer.aclose()
        return answer

    def _new_client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            verify=tls_context(self._to) if self._to.encrypted else True,
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
            follow_redirects=False,
            limits=httpx.Limits(max_connections=1),
        )

    def _headers(self) -> dict[str, str]:
        as_json = self._to.format == "ocsf" or self._to.auth == "splunk"
        headers = {
            "Content-Type": "application/x-ndjson" if as_json else "text/plain; charset=utf-8",
            "User-Agent": f"assay/{PRODUCT_VERSION}",
        }
        if self._to.auth == "splunk":
            headers["Content-Type"] = "application/json"
        try:
            token = self._to.secret()
        except (OSError, ValueError) as error:
            raise SendFailed(
                f"The token's file {self._to.token_file} cannot be read ({type(error).__name__})."
            ) from None
        if token:
            headers["Authorization"] = f"{AUTHORIZATIONS[self._to.auth]} {token}"
        return headers

    def _judge(self, answer: httpx.Response) -> None:
        status = answer.status_code
        if 200 <= status < 300:
            return
        if status in REFUSING:
            raise BatchRefused(f"{self._to.address} answers {status}: it refuses the events.")
        fault = "redirects, which is not followed" if 300 <= status < 400 else WORDS.get(status, "")
        words = f"{self._to.address} answers {status}" + (f": it {fault}." if fault else ".")
        raise SendFailed(words, retry_after=_retry_after(answer))


def _retry_after(answer: httpx.Response) -> float | None:
    text = answer.headers.get("Retry-After", "")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        return None
    return min(float(text), RETRY_AFTER_MAX_S)
