"""Django behind a gate that limits concurrent requests and returns their database connections."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from typing import IO, Any
from weakref import WeakValueDictionary

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.conf import settings
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.functional import cached_property

from assay.api.parsers import MULTIPART_OVERHEAD
from assay.cookies import read_cookies
from assay.gateway.http.asgi import Message, Pace, Receive, Scope, Send
from assay.server import bodies, downloads
from assay.server.connections import prove
from assay.server.gate import Gate, Overloaded
from assay.server.permits import PERMIT, Permit
from assay.server.pooling import give_back
from assay.server.refusals import refusal_response, refuse
from assay.server.shares import Shares
from governance.errors import DomainError

# A response up to this size is taken from Django at once, so that a client that reads slowly keeps
# neither a thread nor a connection. The second number limits all such responses together.
BUFFERED_MAX = 2 * 1024 * 1024
BUFFERED_TOTAL_MAX = 64 * 1024 * 1024
# Number of the largest uploads that the disk has room for.
LARGEST_UPLOADS = 4
# Uploads that have arrived may wait for others to be stored, which takes minutes: maximum number
# and time.
STORING_QUEUE, STORING_WAIT_S = 64, 600


class Request(ASGIRequest):
    """Django's request, with cookies parsed in linear time."""

    @cached_property
    def COOKIES(self) -> dict[str, str]:  # type: ignore[override]  # noqa: N802
        return read_cookies(str(self.META.get("HTTP_COOKIE", "")))


class Handler(ASGIHandler):
    """Django's handler, with bodies in the folder from the settings.

    Middleware and views run in one call to the request's thread. In Django's asynchronous chain,
    every synchronous middleware and view costs a change of threads.
    """

    request_class = Request

    def load_middleware(self, is_async: bool = False) -> None:
        """Load the synchronous chain."""
        super().load_middleware(is_async=False)

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        """Return the response of the synchronous chain."""
        return await sync_to_async(self.get_response)(request)

    def create_request(
        self, scope: Mapping[str, Any], body_file: IO[bytes]
    ) -> tuple[ASGIRequest, None] | tuple[None, HttpResponseBase]:
        """Create the request. One that only asks for permission (`permits`) needs no CSRF token,
        since the token may be in the body."""
        created = super().create_request(scope, body_file)
        if created[0] is not None and PERMIT in scope:
            created[0]._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]
        return created

    async def read_body(self, receive: Callable[[], Awaitable[Mapping[str, Any]]]) -> IO[bytes]:
        """Return the body, rewound.

        Raises:
            RequestAborted: the client hung up.
        """
        body = tempfile.SpooledTemporaryFile(  # noqa: SIM115 (Django closes it)
            max_size=bodies.UNKNOWN_MAX, mode="w+b", dir=settings.FILE_UPLOAD_TEMP_DIR
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
    """The ASGI application. A request waits at the gates after its body has arrived."""

    def __init__(self) -> None:
        self._handler = Handler()
        self.gate = Gate(
            size=settings.WEB_THREADS,
            queue=settings.WEB_QUEUE,
            wait_s=settings.WEB_QUEUE_WAIT_S,
        )
        # At most half of the threads store uploads, since that takes long, and at most half of
        # these for one holder.
        self._storing = max(1, settings.WEB_THREADS // 2)
        self.storing = self._storing_gate(self._storing)
        self._storing_of: WeakValueDictionary[str, Gate] = WeakValueDictionary()
        # Beyond this limit, nodes are told to retry.
        self.downloads = Shares(settings.WEB_DOWNLOADS)
        # Bytes of bodies on disk that are received or waiting.
        largest = max(settings.INTAKE_MAX_BYTES, settings.DATASET_MAX_BYTES)
        self.space = Shares(LARGEST_UPLOADS * (largest + MULTIPART_OVERHEAD))
        self.buffered = 0

    def warm(self) -> None:
        """Load the URLs and the refusal page, which takes a second, so that the first request does
        not wait for them."""
        bodies.allowance_of("/")
        refusal_response("/", Overloaded())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(self, receive, send)
        try:
            admitted = await self._admit(exchange, scope)
            if admitted is not None:
                await self._answer(exchange, admitted)
            await exchange.flush()
        except DomainError as error:
            await refuse(scope, send, error)
        finally:
            exchange.close()

    async def _admit(self, exchange: Exchange, scope: Scope) -> Scope | None:
        """Decide on the body before any of it is read.

        Returns:
            The request for Django; None if the view has refused the body.

        Raises:
            TooLarge: the body is over the view's limit, or over the limit of unknown senders.
            Unavailable: the disk has no room for it.
        """
        length = bodies.declared_length(scope)
        if length == 0:
            return scope
        allowance = bodies.allowance_of(scope["path"])
        if not allowance.limit:
            # Django itself refuses unknown addresses.
            exchange.skip_body()
            return bodies.without_body(scope)
        exchange.limit = min(bodies.UNKNOWN_MAX, allowance.limit)
        if length is None or length <= exchange.limit:
            return scope
        if length > allowance.limit:
            raise bodies.too_large(allowance.limit)
        if not allowance.asks:
            raise bodies.too_large(exchange.limit)
        holder = await self._permitted(exchange, scope)
        if not holder:
            return None
        if not self.space.fits(holder, length):
            raise bodies.no_room()
        prove(scope, holder)
        exchange.permit(holder, allowance.limit)
        if length > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            exchange.gates = (self.storing_of(holder), self.storing, self.gate)
        return scope

    async def _permitted(self, exchange: Exchange, scope: Scope) -> str:
        """Ask the view with the head alone; return the holder of the body, or an empty text after
        sending the view's refusal.
        """
        permit = Permit()
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        asking = Exchange(self, exchange.receive, keep)
        asking.skip_body()
        try:
            await self._answer(asking, {**bodies.without_body(scope), PERMIT: permit})
            await asking.flush()
        finally:
            asking.close()
        if not permit.holder:
            for message in answer:
                await exchange.send(message)
        return permit.holder

    def storing_of(self, holder: str) -> Gate:
        """Return the gate of the holder's own uploads, which exists while an upload uses it."""
        gate = self._storing_of.get(holder)
        if gate is None:
            gate = self._storing_of[holder] = self._storing_gate(max(1, self._storing // 2))
        return gate

    def _storing_gate(self, size: int) -> Gate:
        return Gate(size=size, queue=STORING_QUEUE, wait_s=STORING_WAIT_S)

    async def _answer(self, exchange: Exchange, scope: Scope) -> None:
        async with ThreadSensitiveContext():
            try:
                await self._handler(scope, exchange.receive, exchange.send)  # type: ignore[arg-type]
            finally:
                await exchange.leave()


class Exchange:
    """One request and its response, between the server and Django."""

    def __init__(self, application: DjangoApplication, receive: Receive, send: Send) -> None:
        self._application = application
        self._receive = receive
        self._send = send
        self._next: asyncio.Future[Message] | None = None
        self._pace = Pace(self._following)
        self._received = 0
        self._spooled = 0
        self._buffer: list[Message] = []
        self._held_bytes = 0
        self._is_buffered = False
        self._skipped = False
        self._holder = ""
        self.limit = bodies.UNKNOWN_MAX
        self.downloads: str | None = None
        self.entered = False
        # Gates to pass before Django receives the request, and those already passed.
        self.gates: tuple[Gate, ...] = (application.gate,)
        self._passed: list[Gate] = []

    def skip_body(self) -> None:
        """Give Django an empty body, and do not read the one that is sent."""
        self._skipped = True
        self._next = asyncio.get_running_loop().create_future()

    def permit(self, holder: str, limit: int) -> None:
        """Permit up to `limit` bytes of body, counted for `holder`."""
        self._holder, self.limit = holder, limit

    async def receive(self) -> Message:
        """Return the server's next message. The last part of the body waits for the gates.

        Raises:
            TooLarge, BodySlow: the body is larger than allowed, or takes too long.
            Overloaded: too many requests wait.
            Unavailable: the disk has no room.
        """
        if self.entered:
            return await self._following()
        message = await self._part()
        if message["type"] == "http.request" and not message.get("more_body", False):
            return message if await self._enter() else {"type": "http.disconnect"}
        return message

    async def _part(self) -> Message:
        """Return the next part of the body, counted."""
        if self._skipped:
            return {"type": "http.request", "body": b"", "more_body": False}
        message = await self._pace()
        size = len(message.get("body", b""))
        self._received += size
        if self._received > self.limit:
            raise bodies.too_large(self.limit)
        if self._holder:
            if not self._application.space.take(self._holder, size):
                raise bodies.no_room()
            self._spooled += size
        return message

    async def _following(self) -> Message:
        if self._next is None:
            self._next = asyncio.ensure_future(self._receive())
        message = await asyncio.shield(self._next)
        self._next = None
        return message

    async def _enter(self) -> bool:
        """Wait at the gates; return false if the client hangs up first."""
        turn = asyncio.ensure_future(self._pass_gates())
        if self._next is None:
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
                turn.cancel()
                with contextlib.suppress(asyncio.CancelledError, DomainError):
                    await turn
                self._leave_gates()

    async def _pass_gates(self) -> None:
        for gate in self.gates:
            await gate.enter()
            self._passed.append(gate)

    def _leave_gates(self) -> None:
        while self._passed:
            self._passed.pop().leave()

    async def leave(self) -> None:
        """Leave the gates that were passed, after returning database connections."""
        if self._passed:
            # Django returns connections itself, except after some errors.
            await sync_to_async(give_back)()
            self._leave_gates()

    async def send(self, message: Message) -> None:
        """Buffer a response of known, moderate length; send others at once.

        Raises:
            Overloaded: it is a download, and there are too many.
        """
        if message["type"] == "http.response.start":
            if (holder := downloads.pop_holder(message)) is not None:
                if not self._application.downloads.take(holder):
                    raise Overloaded
                self.downloads = holder
                await self.leave()
            length = next((v for k, v in message["headers"] if k.lower() == b"content-length"), b"")
            self._is_buffered = length.isdigit() and self._may_hold(int(length))
        if self._is_buffered:
            self._buffer.append(message)
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
        """Send the buffered response, at the client's pace."""
        for message in self._buffer:
            await self._send(message)

    def close(self) -> None:
        """Release the exchange's shares of the process's limits."""
        self._application.buffered -= self._held_bytes
        if self._spooled:
            self._application.space.give_back(self._holder, self._spooled)
        if self.downloads is not None:
            self._application.downloads.give_back(self.downloads)
        if self._next is not None:
            self._next.cancel()
