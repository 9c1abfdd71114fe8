"""Django behind a gate: so many requests at once, and no connection that outlives its request."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler

from assay.gateway.http import Message, Receive, Scope, Send
from assay.server.gate import Gate
from assay.server.pooling import give_back
from assay.server.refusals import refuse
from governance.errors import DomainError

# A response up to this size is taken from Django at once, so that a client that reads slowly holds
# neither a thread nor a connection. All of them together may take the second number.
BUFFERED_MAX = 2 * 1024 * 1024
BUFFERED_TOTAL_MAX = 64 * 1024 * 1024


class DjangoApplication:
    """The ASGI application. A request waits for its turn once its body has arrived."""

    def __init__(self) -> None:
        self._handler = ASGIHandler()
        self.gate = Gate(
            size=settings.WEB_THREADS,
            queue=settings.WEB_QUEUE,
            wait_s=settings.WEB_QUEUE_WAIT_S,
        )
        self.buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(self, receive, send)
        try:
            await self._answer(exchange, scope)
            await exchange.flush()
        except DomainError as error:
            await refuse(scope, send, error)
        finally:
            exchange.close()

    async def _answer(self, exchange: Exchange, scope: Scope) -> None:
        async with ThreadSensitiveContext():
            try:
                await self._handler(scope, exchange.receive, exchange.send)  # type: ignore[arg-type]
            finally:
                if exchange.entered:
                    # Django gives connections back itself, unless something went wrong.
                    await sync_to_async(give_back)()
                    self.gate.leave()


class Exchange:
    """One request and its response, between the server and Django."""

    def __init__(self, application: DjangoApplication, receive: Receive, send: Send) -> None:
        self._application = application
        self._receive = receive
        self._send = send
        self._next: asyncio.Future[Message] | None = None
        self._held: list[Message] = []
        self._held_bytes = 0
        self._holds = False
        self.entered = False

    async def receive(self) -> Message:
        """The server's next message. The last of the body is handed on when it is our turn."""
        message = await self._following()
        last = message["type"] == "http.request" and not message.get("more_body", False)
        if last and not self.entered and not await self._enter():
            return {"type": "http.disconnect"}
        return message

    async def _following(self) -> Message:
        if self._next is None:
            self._next = asyncio.ensure_future(self._receive())
        message = await asyncio.shield(self._next)
        self._next = None
        return message

    async def _enter(self) -> bool:
        """Wait for our turn; False when the client hangs up first, and then nobody is waiting."""
        turn = asyncio.ensure_future(self._application.gate.enter())
        self._next = asyncio.ensure_future(self._receive())
        try:
            await asyncio.wait((turn, self._next), return_when=asyncio.FIRST_COMPLETED)
            if not turn.done():
                return False
            turn.result()
            self.entered = True
            return True
        finally:
            if not self.entered:
                await _abandon(turn, self._application.gate)

    async def send(self, message: Message) -> None:
        """Hold a response of known and moderate length; pass on every other as it comes."""
        if message["type"] == "http.response.start":
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
        self._application.buffered -= self._held_bytes
        if self._next is not None:
            self._next.cancel()


async def _abandon(turn: asyncio.Future[Any], gate: Gate) -> None:
    """Leave the queue; and the gate, if it opened at this very moment."""
    turn.cancel()
    with contextlib.suppress(asyncio.CancelledError, DomainError):
        await turn
        gate.leave()
