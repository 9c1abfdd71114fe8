"""Replies of engine workers: one Redis Stream for this process and one for each node that answers
it, one reader for all of them, and one queue for each request.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

import redis

from assay.gateway.http.asgi import Receive
from assay.gateway.monitoring.metrics import FORGED
from assay.gateway.run.pipeline import Pipeline
from governance.errors import DomainError
from workers.request_logs import about
from workers.sealing import ReplyReader
from workers.wire import REPLY_TTL_S, Event, Failed, RequestStarted, realm_of, reply_stream
from workers.wire_keys import Forged

logger = logging.getLogger(__name__)

_BLOCK_MS = 1000
_COUNT = 500
_TRIM_EVERY_S = 15.0
# Period for which a node's stream is read after the last request to it, in seconds.
_FOLLOWED_S = 60.0
# Maximum of nodes that may return one request before the gateway knows that they serve it.
_EARLY_MAX = 16


class Signal(Enum):
    """Signal of the gateway itself in a request's queue."""

    DISCONNECTED = "disconnected"


@dataclass(frozen=True, slots=True)
class Cut:
    """The request must end: it is no longer admitted, or a time limit has passed."""

    error: DomainError


@dataclass(frozen=True, slots=True)
class Tampered:
    """A reply did not come from the worker; later replies to this request are not trusted."""

    reason: str


Arrival = Event | Signal | Cut | Tampered
Inbox = asyncio.Queue[Arrival]


@dataclass(slots=True)
class _Expected:
    """Destination of the replies to a request, and their check once the request is sealed.

    `realms` are those that it was sealed for, and those of other workers that may read its queue,
    then or later. `early` are entries by which other realms return the request, with the time of
    arrival (monotonic): their node may have received the deployment after the newest snapshot.
    """

    inbox: Inbox
    reader: ReplyReader | None = None
    realms: set[str] = field(default_factory=set)
    early: dict[str, tuple[dict[bytes, bytes], float]] = field(default_factory=dict)


@dataclass(slots=True)
class _Stream:
    """A stream that is read: its realm, the last entry, and the end of its use (monotonic)."""

    realm: str
    last: str | bytes = "0-0"
    until: float = float("inf")


class Replies:
    """Start and stop it on one event loop.

    `client` is used only here, because a blocking read would delay other commands. `commands` wakes
    that read when another node's stream is added, and deletes the streams at the end.
    """

    def __init__(self, client: Pipeline, commands: Pipeline) -> None:
        self.stream = f"assay:reply:{uuid.uuid4().hex}"
        self._client = client
        self._commands = commands
        self._expected: dict[str, _Expected] = {}
        self._streams = {self.stream.encode(): _Stream("")}
        self._trimmed_at = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        self._waking: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._read())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, *self._waking, return_exceptions=True)
        try:
            # The reading connection may be blocked for another second.
            await self._commands.execute_command("DEL", *self._streams)
        except (redis.RedisError, OSError):
            logger.warning("Reply stream %s is left to expire.", self.stream)

    def open(self, request_id: str, inbox: Inbox | None = None) -> Inbox:
        """Return the queue for replies to `request_id`, until `close`; another attempt of a request
        uses the `inbox` of the first."""
        inbox = asyncio.Queue() if inbox is None else inbox
        self._expected[request_id] = _Expected(inbox)
        return inbox

    def expect(self, request_id: str, reader: ReplyReader, realms: Iterable[str] = ()) -> None:
        """Accept replies that `reader` can open. Call it before the request is published.

        `realms` are those of the workers that may read the request's queue.
        """
        expected = self._expected[request_id]
        expected.reader = reader
        expected.realms = {*realms, *map(realm_of, reader.holders)}
        expected.early.clear()
        self._follow(expected.realms)

    def realms(self, request_id: str) -> frozenset[str]:
        """Return the realms whose workers may have the request; empty once it is closed."""
        expected = self._expected.get(request_id)
        return frozenset() if expected is None else frozenset(expected.realms)

    def placed(self, realms: Mapping[int, Iterable[str]], read_at: float) -> None:
        """Update the realms of workers that may read each deployment's queue, as of `read_at`
        (monotonic). A new worker may have read a request that was not sealed for it, and returns
        it.
        """
        for request_id, expected in self._expected.items():
            if expected.reader is None:
                continue
            expected.realms.update(realms.get(expected.reader.deployment_id, ()))
            self._follow(expected.realms)
            for realm, (fields, arrived_at) in list(expected.early.items()):
                if realm in expected.realms:
                    del expected.early[realm]
                    self._deliver(fields, realm)
                elif arrived_at < read_at:
                    del expected.early[realm]
                    _refuse(request_id, f"node {realm}")

    def _follow(self, realms: Iterable[str]) -> None:
        """Read the streams of these realms for the next `_FOLLOWED_S` seconds."""
        now = time.monotonic()
        for realm in realms:
            if not realm:
                continue
            name = reply_stream(self.stream, realm).encode()
            stream = self._streams.get(name)
            if stream is None:
                stream = self._streams[name] = _Stream(realm)
                task = asyncio.create_task(self._wake())
                self._waking.add(task)
                task.add_done_callback(self._waking.discard)
            stream.until = now + _FOLLOWED_S

    async def _wake(self) -> None:
        """End the blocking read, so that the next one reads all streams."""
        try:
            await self._commands.execute_command("XADD", self.stream, "*", "wake", "")
        except (redis.RedisError, OSError):
            logger.debug("The next read of reply streams waits for %d ms", _BLOCK_MS)

    def close(self, request_id: str) -> None:
        """Drop later replies to `request_id`."""
        self._expected.pop(request_id, None)

    def holders(self) -> dict[str, frozenset[str]]:
        """Return, by published request, the worker process that answers it; before one has taken
        it, all that could.
        """
        return {
            request_id: expected.reader.holders
            for request_id, expected in self._expected.items()
            if expected.reader is not None
        }

    def fail(self, request_id: str, failure: Failed) -> None:
        """End a request with `failure`, as its worker would; drop later replies."""
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
        last = [stream.last for stream in self._streams.values()]
        answer = await self._client.execute_command(
            "XREAD", "COUNT", _COUNT, "BLOCK", _BLOCK_MS, "STREAMS", *self._streams, *last
        )
        # [[stream, [[identifier, [name, value, …]], …]], …], or None.
        for name, entries in answer or ():
            stream = self._streams[name]
            for identifier, flat in entries:
                stream.last = identifier
                self._deliver(dict(zip(flat[::2], flat[1::2], strict=True)), stream.realm)
        if time.monotonic() - self._trimmed_at > _TRIM_EVERY_S:
            self._trimmed_at = time.monotonic()
            await self._trim()

    async def _trim(self) -> None:
        now = time.monotonic()
        used = {realm for expected in self._expected.values() for realm in expected.realms}
        commands: list[tuple[str | bytes | int, ...]] = []
        for name, stream in list(self._streams.items()):
            commands.append(("XTRIM", name, "MINID", stream.last))
            commands.append(("EXPIRE", name, REPLY_TTL_S))
            if stream.until < now and stream.realm not in used:
                # Let it expire: a DEL could delete replies to the next request to this node.
                del self._streams[name]
        # At once, and awaited: no stream is read before all are trimmed.
        await asyncio.gather(*(self._commands.execute_command(*each) for each in commands))

    def _deliver(self, fields: dict[bytes, bytes], realm: str) -> None:
        request_id = fields.get(b"id", b"").decode("utf-8", "replace")
        expected = self._expected.get(request_id)
        if expected is None or expected.reader is None:
            return
        if realm not in expected.realms:
            # Only this node can write to the stream; other workers may still answer the request.
            if b"bounce" in fields and len(expected.early) < _EARLY_MAX:
                self._keep(expected, request_id, fields[b"bounce"], realm)
            else:
                _refuse(request_id, f"node {realm}")
            return
        try:
            for event in expected.reader.open(fields, realm):
                # The reader has noted which worker answers; the request does not need the event.
                if not isinstance(event, RequestStarted):
                    expected.inbox.put_nowait(event)
        except Forged as error:
            _refuse(request_id, str(error))
            expected.reader = None
            expected.inbox.put_nowait(Tampered(str(error)))

    def _keep(self, expected: _Expected, request_id: str, mac: bytes, realm: str) -> None:
        """Keep an entry that returns a request until a snapshot shows if its node may do so."""
        fields = {b"id": request_id.encode(), b"bounce": mac}
        try:
            if expected.reader is not None:
                expected.reader.open(fields, realm)
                expected.early.setdefault(realm, (fields, time.monotonic()))
        except Forged as error:
            _refuse(request_id, f"node {realm}: {error}")


def _refuse(request_id: str, reason: str) -> None:
    FORGED.inc()
    logger.critical(
        "FORGED REPLY to request %s refused: %s", request_id, reason, extra=about(request_id)
    )


async def watch_client(receive: Receive, inbox: Inbox) -> None:
    """Put a signal into the queue when the client hangs up."""
    while (await receive())["type"] != "http.disconnect":
        pass
    inbox.put_nowait(Signal.DISCONNECTED)
