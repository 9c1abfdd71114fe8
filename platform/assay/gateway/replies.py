"""Answers from engine workers: one Redis Stream for this process, one reader, a queue a request."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from dataclasses import dataclass
from enum import Enum

import redis

from assay.gateway.http import Receive
from assay.gateway.metrics import FORGED
from assay.gateway.pipeline import Pipeline
from governance.errors import DomainError
from workers.sealing import Forged, ReplyReader
from workers.wire import REPLY_TTL_S, Event, Failed, Taken

logger = logging.getLogger(__name__)

_BLOCK_MS = 1000
_COUNT = 500
_TRIM_EVERY_S = 15.0


class Signal(Enum):
    """Signal in a request's queue that is no event of the worker."""

    DISCONNECTED = "disconnected"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True)
class Cut:
    """The request may not go on: what admitted it no longer holds."""

    error: DomainError


@dataclass(frozen=True, slots=True)
class Tampered:
    """A reply was not written by the worker; later replies to this request are not trusted."""

    reason: str


Inbox = asyncio.Queue[Event | Signal | Cut | Tampered]


@dataclass(slots=True)
class _Expected:
    """Destination of the replies to a request, and their check once the request is sealed."""

    inbox: Inbox
    reader: ReplyReader | None = None


class Replies:
    """Start and stop it on one event loop.

    `client` is its own: a blocking read would hold up everything else on a shared connection.
    """

    def __init__(self, client: Pipeline) -> None:
        self.stream = f"assay:reply:{uuid.uuid4().hex}"
        self._client = client
        self._expected: dict[str, _Expected] = {}
        self._last: str | bytes = "0-0"
        self._trimmed_at = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._read())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            await self._client.execute_command("DEL", self.stream)
        except (redis.RedisError, OSError):
            logger.warning("Reply stream %s is left to expire.", self.stream)

    def open(self, request_id: str) -> Inbox:
        """The queue that the answers to `request_id` will arrive in, until `close`."""
        inbox: Inbox = asyncio.Queue()
        self._expected[request_id] = _Expected(inbox)
        return inbox

    def expect(self, request_id: str, reader: ReplyReader) -> None:
        """Believe what `reader` opens. Call it before the request is published."""
        self._expected[request_id].reader = reader

    def close(self, request_id: str) -> None:
        """Answers to `request_id` that still come are dropped."""
        self._expected.pop(request_id, None)

    def holders(self) -> dict[str, frozenset[str]]:
        """For each request that is published the worker process that answers it; before one does,
        all that could.
        """
        return {
            request_id: expected.reader.holders
            for request_id, expected in self._expected.items()
            if expected.reader is not None
        }

    def fail(self, request_id: str, failure: Failed) -> None:
        """End a request as its worker would; whatever still comes is dropped."""
        expected = self._expected.get(request_id)
        if expected is not None:
            expected.reader = None
            expected.inbox.put_nowait(failure)

    async def _read(self) -> None:
        while True:
            try:
                await self._read_once()
            except (redis.RedisError, OSError) as error:
                logger.warning("Reply stream %s cannot be read: %s", self.stream, error)
                await asyncio.sleep(0.5)

    async def _read_once(self) -> None:
        answer = await self._client.execute_command(
            "XREAD", "COUNT", _COUNT, "BLOCK", _BLOCK_MS, "STREAMS", self.stream, self._last
        )
        # [[stream, [[identifier, [name, value, …]], …]]], or None.
        for identifier, flat in answer[0][1] if answer else ():
            self._last = identifier
            self._deliver(dict(zip(flat[::2], flat[1::2], strict=True)))
        if time.monotonic() - self._trimmed_at > _TRIM_EVERY_S:
            self._trimmed_at = time.monotonic()
            await self._client.execute_command("XTRIM", self.stream, "MINID", self._last)
            await self._client.execute_command("EXPIRE", self.stream, REPLY_TTL_S)

    def _deliver(self, fields: dict[bytes, bytes]) -> None:
        request_id = fields.get(b"id", b"").decode("utf-8", "replace")
        expected = self._expected.get(request_id)
        if expected is None or expected.reader is None:
            return
        try:
            for event in expected.reader.open(fields):
                # The reader knows now which worker answers; the request need not be told.
                if not isinstance(event, Taken):
                    expected.inbox.put_nowait(event)
        except Forged as error:
            FORGED.inc()
            logger.critical("FORGED REPLY to request %s refused: %s", request_id, error)
            expected.reader = None
            expected.inbox.put_nowait(Tampered(str(error)))


async def watch_client(receive: Receive, inbox: Inbox) -> None:
    """Put the client's hanging up among the events."""
    while (await receive())["type"] != "http.disconnect":
        pass
    inbox.put_nowait(Signal.DISCONNECTED)
