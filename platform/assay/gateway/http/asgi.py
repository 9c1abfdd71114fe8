"""The subset of HTTP that the gateway needs, on raw ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeVar

from django.conf import settings

from assay.addresses import forwarded_address
from assay.gateway.http.errors import WrongContentType
from governance.errors import DomainError, TooLarge
from registry.catalog.requests import Body, check_containers

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
T = TypeVar("T")

# Time limit for a body that is read into memory.
BODY_TIMEOUT_S = 30.0
# Bytes that extend the time limit of any other body, which a setting defines, by one second.
LEAST_BYTES_PER_S = 16 * 1024
# Parsing this many bytes takes at most two milliseconds.
PARSED_AT_ONCE_BYTES = 32 * 1024


class ClientGone(Exception):
    """The client has closed the connection."""


class BodySlow(DomainError):
    """The body did not arrive in time (408)."""

    code = "request_timeout"
    status = 408
    title = "Request timeout"


class Pace:
    """A `receive` that refuses a body that arrives too slowly.

    Only the time spent waiting for the client counts.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._waited = 0.0
        self._received = 0

    async def __call__(self) -> Message:
        """Return the next message.

        Raises:
            BodySlow: the client sent too little in the time granted.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        granted = settings.WEB_BODY_TIMEOUT_S + self._received / LEAST_BYTES_PER_S
        try:
            async with asyncio.timeout(granted - self._waited):
                message = await self._receive()
        except TimeoutError:
            raise BodySlow(
                "The body did not arrive in time.",
                hint=f"It may take {settings.WEB_BODY_TIMEOUT_S} s, and a second more for each "
                f"{LEAST_BYTES_PER_S:,} bytes.",
            ) from None
        self._waited += loop.time() - begun
        self._received += len(message.get("body", b""))
        return message


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return the value of the first header called `name` (lower case)."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def client_address(scope: Scope) -> str:
    """Return the peer's address, or the one that a trusted proxy sends in `X-Forwarded-For`; empty
    on a Unix socket.
    """
    client = scope.get("client")
    if not client:
        return ""
    forwarded = [
        bytes(value).decode("latin-1")
        for name, value in scope["headers"]
        if name == b"x-forwarded-for"
    ]
    return forwarded_address(str(client[0]), forwarded, settings.TRUSTED_PROXIES)


def encode(text: str) -> bytes:
    """Return UTF-8; characters that it cannot encode become question marks."""
    return text.encode("utf-8", "replace")


async def parsed(body: Body, parser: Callable[..., T], *arguments: Any) -> T:
    """Return `parser(*arguments)`; the arguments are `body` or parts of it. Raises as `parser`.

    A large body is parsed in a thread, so that it does not block other requests.
    """
    if len(body.data) <= PARSED_AT_ONCE_BYTES:
        return parser(*arguments)
    return await asyncio.to_thread(parser, *arguments)


async def read_body(
    scope: Scope, receive: Receive, limit: int, content_types: Sequence[str]
) -> Body:
    """Return the request's body, at most `limit` bytes.

    `content_types` are the accepted types; one that ends with `/*` stands for its whole group.

    Raises:
        WrongContentType: the declared type is not accepted, or the body is compressed.
        TooLarge: its actual or declared length is over the limit.
        BodySlow: it did not arrive within `BODY_TIMEOUT_S` seconds.
        ClientGone: the client hung up first.
        RequestInvalid: it is JSON with too many objects and lists.
    """
    declared_type = (header(scope, b"content-type") or b"").decode("latin-1")
    kind, _, parameters = declared_type.partition(";")
    # RFC 9110, 8.3. Hugging Face's client states no type for bytes.
    kind = kind.strip().lower() or "application/octet-stream"
    if not _taken(kind, content_types):
        raise WrongContentType(
            "Send the body as JSON, with `Content-Type: application/json`."
            if content_types == ("application/json",)
            else f"Send the body as one of: {', '.join(content_types)}."
        )
    if header(scope, b"content-encoding") not in (None, b"identity"):
        raise WrongContentType("Compressed request bodies are not accepted; send it uncompressed.")
    declared = header(scope, b"content-length") or b"0"
    if not declared.isdigit() or int(declared[:20]) > limit:
        raise too_large(limit)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            data = await _collect(receive, limit)
    except TimeoutError:
        raise BodySlow(f"The request body did not arrive within {BODY_TIMEOUT_S:.0f} s.") from None
    if kind == "application/json":
        check_containers(data)
    return Body(kind, data, parameters.strip())


def _taken(kind: str, content_types: Sequence[str]) -> bool:
    group = kind.partition("/")[0]
    return kind in content_types or f"{group}/*" in content_types


async def _collect(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise too_large(limit)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"The request body is over the limit of {limit:,} bytes.",
        hint="Send less in one request.",
    )


async def respond(
    send: Send, status: int, body: bytes, headers: Headers, kind: bytes = b"application/json"
) -> None:
    """Send one complete response."""
    fixed = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": fixed + headers})
    await send({"type": "http.response.body", "body": body})
