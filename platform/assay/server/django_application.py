"""Django behind a gate: so many requests at once, and no connection that outlives its request."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from typing import IO, Any

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.conf import settings
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler

from assay.gateway.http import Message, Receive, Scope, Send
from assay.server import bodies, downloads
from assay.server.gate import Gate, Overloaded
from assay.server.pooling import give_back
from assay.server.refusals import refuse
from governance.errors import DomainError

# A response up to this size is taken from Django at once, so that a client that reads slowly holds
# neither a thread nor a connection. All of them together may take the second number.
BUFFERED_MAX = 2 * 1024 * 1024
BUFFERED_TOTAL_MAX = 64 * 1024 * 1024
# The part of a body that is kept in memory; the rest waits on the disk.
SPOOL_IN_MEMORY = 64 * 1024
# What waits on the disk of all bodies that are not uploads. Beyond it large bodies are refused, and
# forms that fit into memory, such as signing in, still are not.
SPOOLED_TOTAL_MAX = 128 * 1024 * 1024


class Handler(ASGIHandler):
    """Django's handler, with bodies in the folder that the settings name."""

    async def read_body(self, receive: Callable[[], Awaitable[Mapping[str, Any]]]) -> IO[bytes]:
        """The body, rewound.

        Raises:
            RequestAborted: the client hung up.
        """
        body = tempfile.SpooledTemporaryFile(  # noqa: SIM115 (Django closes it)
            max_size=SPOOL_IN_MEMORY, mode="w+b", dir=settings.FILE_UPLOAD_TEMP_DIR
        )
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RequestAborted
                body.write(message.get("body", b""))
                if not message.get("more_body", False):
                    break
        except BaseException:
            body.close()
            raise
        body.seek(0)
        return body


class DjangoApplication:
    """The ASGI application. A request waits for its turn once its body has arrived."""

    def __init__(self) -> None:
        self._handler = Handler()
        self.gate = Gate(
            size=settings.WEB_THREADS,
            queue=settings.WEB_QUEUE,
            wait_s=settings.WEB_QUEUE_WAIT_S,
        )
        # Half of the threads at most, since what they store takes long.
        self.uploads = Gate(
            size=max(1, settings.WEB_THREADS // 2),
            queue=settings.WEB_THREADS,
            wait_s=settings.WEB_QUEUE_WAIT_S,
        )
        # Beyond it, nodes are told to come again.
        self.downloads = downloads.Downloads(settings.WEB_DOWNLOADS)
        self.buffered = 0
        self.spooled = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(self, receive, send)
        try:
            scope = await self._admit(exchange, scope)
            await self._answer(exchange, scope)
            await exchange.flush()
        except DomainError as error:
            await refuse(scope, send, error)
        finally:
            exchange.close()

    async def _admit(self, exchange: Exchange, scope: Scope) -> Scope:
        """Decide on the body before any of it is read; returns the request as Django sees it."""
        length = bodies.declared_length(scope)
        if length == 0:
            return scope
        allowance = bodies.allowance_of(scope["path"])
        small = min(allowance.limit, settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
        exchange.limit = small
        if length is None or length <= small:
            if small:
                return scope
        elif length > allowance.limit and allowance.limit:
            raise bodies.too_large(allowance.limit)
        elif allowance.limit and await self._is_known(scope):
            await self.uploads.enter()
            exchange.limit, exchange.uploads = allowance.limit, True
            return scope
        # Django itself refuses unknown addresses and anonymous callers.
        exchange.skip_body()
        return bodies.without_body(scope)

    async def _is_known(self, scope: Scope) -> bool:
        await self.gate.enter()
        try:
            async with ThreadSensitiveContext():
                return await sync_to_async(_known)(scope)
        finally:
            self.gate.leave()

    async def _answer(self, exchange: Exchange, scope: Scope) -> None:
        async with ThreadSensitiveContext():
            try:
                await self._handler(scope, exchange.receive, exchange.send)  # type: ignore[arg-type]
            finally:
                await exchange.leave()


def _known(scope: Scope) -> bool:
    try:
        return bodies.is_known(scope)
    finally:
        give_back()


class Exchange:
    """One request and its response, between the server and Django."""

    def __init__(self, application: DjangoApplication, receive: Receive, send: Send) -> None:
        self._application = application
        self._receive = receive
        self._send = send
        self._next: asyncio.Future[Message] | None = None
        self._started: float | None = None
        self._received = 0
        self._spooled = 0
        self._held: list[Message] = []
        self._held_bytes = 0
        self._holds = False
        self._skipped = False
        self.limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        self.uploads = False
        self.downloads: str | None = None
        self.entered = False
        self._gated = False

    def skip_body(self) -> None:
        """Hand on an empty body in place of the one that is sent, and read none of that."""
        self._skipped = True
        self._next = asyncio.get_running_loop().create_future()

    async def receive(self) -> Message:
        """The server's next message. The last of the body is handed on when it is our turn.

        Raises:
            TooLarge, BodySlow: the body is larger than allowed, or takes too long.
            Overloaded: too many wait, or too many bytes do.
        """
        if self.entered:
            return await self._following()
        message = await self._part()
        if message["type"] == "http.request" and not message.get("more_body", False):
            return message if await self._enter() else {"type": "http.disconnect"}
        return message

    async def _part(self) -> Message:
        """The next piece of the body, counted."""
        if self._skipped:
            return {"type": "http.request", "body": b"", "more_body": False}
        if self._started is None:
            self._started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(self._started + bodies.due_s(self._received)):
                message = await self._following()
        except TimeoutError:
            raise bodies.late() from None
        self._received += len(message.get("body", b""))
        if self._received > self.limit:
            raise bodies.too_large(self.limit)
        if not self.uploads and self._received > SPOOL_IN_MEMORY:
            more = self._received - SPOOL_IN_MEMORY - self._spooled
            self._spooled += more
            self._application.spooled += more
            if self._application.spooled > SPOOLED_TOTAL_MAX:
                raise Overloaded
        return message

    async def _following(self) -> Message:
        if self._next is None:
            self._next = asyncio.ensure_future(self._receive())
        message = await asyncio.shield(self._next)
        self._next = None
        return message

    async def _enter(self) -> bool:
        """Wait for our turn; return False when the client hangs up first."""
        turn = asyncio.ensure_future(self._application.gate.enter())
        if self._next is None:
            self._next = asyncio.ensure_future(self._receive())
        try:
            await asyncio.wait((turn, self._next), return_when=asyncio.FIRST_COMPLETED)
            if not turn.done():
                return False
            turn.result()
            self.entered = self._gated = True
            return True
        finally:
            if not self.entered:
                await _abandon(turn, self._application.gate)

    async def leave(self) -> None:
        """Leave the gate, if the exchange is within; its connections are given back before."""
        if self._gated:
            # Django gives connections back itself, unless something went wrong.
            await sync_to_async(give_back)()
            self._gated = False
            self._application.gate.leave()

    async def send(self, message: Message) -> None:
        """Hold a response of known and moderate length; pass on every other as it comes.

        Raises:
            Overloaded: it is a download, and there are too many.
        """
        if message["type"] == "http.response.start":
            if (holder := downloads.taken_out(message)) is not None:
                await self._application.downloads.enter(holder)
                self.downloads = holder
                await self.leave()
            length = next((v for k, v in message["headers"] if k.lower() == b"content-length"), b"")
            self._holds = length.isdigit() and self._may_hold(int(length))
        if self._holds:
            self._held.append(message)
        else:
            await self._send(message)

    def _may_hold(self, length: int) -> bool:
        free = BUFFERED_TOTAL_MAX - self._application.buffered
        if length > min(BUFFERED_MAX, free):
            return False
        self._held_bytes = length
        self._application.buffered += length
        return True

    async def flush(self) -> None:
        """Send what is held, at the client's pace."""
        for message in self._held:
            await self._send(message)

    def close(self) -> None:
        """Give back what the exchange held of the process's bounds."""
        self._application.buffered -= self._held_bytes
        self._application.spooled -= self._spooled
        if self.uploads:
            self._application.uploads.leave()
        if self.downloads is not None:
            self._application.downloads.leave(self.downloads)
        if self._next is not None:
            self._next.cancel()


async def _abandon(turn: asyncio.Future[Any], gate: Gate) -> None:
    """Leave the queue; and the gate, if it opened at this very moment."""
    turn.cancel()
    with contextlib.suppress(asyncio.CancelledError, DomainError):
        await turn
        gate.leave()
