"""HTTP on one connection, with limits that uvicorn leaves to a proxy.

uvicorn's httptools protocol is fast but trusts the client: a header may be endless or take a week
to arrive, and an answer may wait forever to be read. This protocol has a limit for each.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from django.conf import settings
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from assay.gateway.http.asgi import Scope, client_address
from assay.server.connections import CONNECTION, Waiting, protected, source_of
from assay.server.step_writer import StepWriter

# The request line with all headers; later, the bytes between two parts of a body.
HEAD_MAX_BYTES = 64 * 1024
HEAD_MAX_FIELDS = 128
# Maximum bytes of a body that are dropped after its request was answered.
DROPPED_MAX_BYTES = 1024 * 1024

_REFUSALS = {
    431: "The request's headers are too large.",
    408: "The request's headers did not arrive in time.",
    503: "Too many connections.",
}


class BoundedProtocol(HttpToolsProtocol):  # type: ignore[misc]
    """uvicorn's protocol with limits on headers, time, and the number of connections.

    If there are too many, connections that wait for clients without a verified credential close.
    """

    # Of the whole process.
    waiting: ClassVar[Waiting] = Waiting()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._head_bytes = 0
        self._dropped_bytes = 0
        self._refused = False
        # Bytes since the last part of a body.
        self._overhead = 0
        self._progress = False
        self._holder = ""
        # Between requests, or while one is incomplete.
        self._expects = True
        # The current bytes completed a head.
        self._begun = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.transport = StepWriter(transport, self.loop)
        self._await_head()
        if len(self.connections) > settings.WEB_CONNECTIONS:
            self.waiting.longest().turn_away(503)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self.waiting.remove(self)
        self._unprove()
        if self._write_timer is not None:
            self._write_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._progress = False
        super().data_received(data)
        if self.transport.is_closing():
            self._limit_writing()
            return
        # Limits endless heads and trailers; the length of a body is limited by path.
        self._overhead = 0 if self._progress else self._overhead + len(data)
        if self._overhead > HEAD_MAX_BYTES:
            self.turn_away(431)
        elif self._begun and not self._refused:
            self._begun = False
            self._wait_anew()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[CONNECTION] = self
        self._in_head = self._expects = True
        self._head_bytes = self._dropped_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._head_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # A trailer: Assay reads none, and none may be taken for a header.
        self._head_bytes += len(name) + len(value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._progress = self._begun = True
        self._stop_head_timer()
        self._unprove()
        if self._head_bytes > HEAD_MAX_BYTES or len(self.headers) > HEAD_MAX_FIELDS:
            self.turn_away(431)
        self._in_head = False
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._progress = True
        if self._refused:
            return
        super().on_body(body)
        if self.cycle.response_complete:
            self._dropped_bytes += len(body)
            if self._dropped_bytes > DROPPED_MAX_BYTES:
                self.turn_away(413)

    def on_message_complete(self) -> None:
        self._progress = True
        if not self._refused:
            # After an answer that did not wait for the body, the next request is due.
            self._expects = self.cycle.response_complete
            self._begun = True
            super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._limit_writing()
        elif self.cycle.response_complete:
            self._expects = True
            self._await_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._limit_writing()

    def resume_writing(self) -> None:
        # While the connection closes, the limit applies to the remaining bytes too.
        if self._write_timer is not None and not self.transport.is_closing():
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()
        if not self._waits():
            self.waiting.remove(self)

    def prove(self, scope: Scope, holder: str) -> None:
        """Protect the connection of a verified request, within the holder's share of places."""
        ended = scope["headers"] is not self.headers or self.transport.is_closing()
        if not ended and not self._holder and protected().take(holder):
            self._holder = holder
            self.waiting.remove(self)

    def _unprove(self) -> None:
        if self._holder:
            protected().give_back(self._holder)
            self._holder = ""

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._limit_writing()

    def turn_away(self, status: int) -> None:
        """Close the connection, with an answer if one is due and none has begun."""
        if self.transport.is_closing():
            # The client does not read the remaining bytes.
            self.transport.abort()
            return
        if self._refused:
            return
        self._refused = True
        self._stop_head_timer()
        if self._in_head:
            due = self.cycle is None or self.cycle.response_complete
        else:
            due = self.cycle is not None and not (self.cycle.response_started or self.pipeline)
        if due:
            text = _REFUSALS[status].encode()
            lines = [STATUS_LINE[status], b"content-type: text/plain; charset=utf-8\r\n"]
            lines.append(b"content-length: %d\r\n" % len(text))
            if status == 503:
                lines.append(b"retry-after: 5\r\n")
            self.transport.write(b"".join([*lines, b"connection: close\r\n\r\n", text]))
        self.transport.close()
        self._limit_writing()

    def _await_head(self) -> None:
        self._stop_head_timer()
        self._head_timer = self.loop.call_later(settings.WEB_HEAD_TIMEOUT_S, self.turn_away, 408)
        self._wait_anew()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _waits(self) -> bool:
        """Return true if the connection waits for a client without a verified credential."""
        blocked = self.flow.write_paused or self.transport.is_closing()
        return not self._holder and (self._expects or blocked)

    def _wait_anew(self) -> None:
        """Start to wait for the client's next step, if one is due."""
        if self not in self.connections or not self._waits():
            self.waiting.remove(self)
            return
        if self._in_head or self.cycle is None or self.cycle.response_complete:
            # The forwarded address of the next request is unknown yet.
            address = self.client[0] if self.client else ""
        else:
            address = client_address(self.scope)
        self.waiting.add(self, source_of(address))

    def _limit_writing(self) -> None:
        self._wait_anew()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(
                settings.WEB_WRITE_TIMEOUT_S, self.transport.abort
            )
