"""One connection to Valkey for the commands of many requests at a time.

A pool lends a connection to one command after another, which costs a gateway more processor time
than the commands themselves. Here every command goes out at once, together with the others of the
same step of the event loop, and answers come back in the order of the commands. redis-py connects
and signs in (TLS, Unix sockets, users); hiredis reads answers; only their order is kept here.

No command is ever repeated: a reservation that was sent twice would be charged twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import hiredis
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from assay.server.step_writer import StepWriter

# Commands without an answer. More fail at once, so that a slow store holds up a bounded number.
WAITING_MAX = 4096
CONNECT_TIMEOUT_S = 2.0
_CHECK_S = 0.25
_INCOMPLETE = object()


class Pipeline:
    """Commands to one Redis, from one event loop.

    `timeout_s` is how long the oldest command may wait for its answer. Then the connection counts
    as dead: all that wait on it fail, and the next command makes a new one.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._pool = redis.asyncio.ConnectionPool.from_url(
            url,
            socket_timeout=None,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        # Whatever the URL says: the answers of the other protocol have other shapes.
        self._pool.connection_kwargs["protocol"] = 2
        self._timeout_s = timeout_s
        self._link: _Link | None = None
        self._connecting: asyncio.Task[_Link] | None = None

    async def execute_command(self, *command: str | bytes | int | float) -> Any:
        """Return the answer, with texts as bytes.

        Raises:
            redis.RedisError: the answer is an error, or did not come.
        """
        link = self._link
        if link is None or link.broken:
            link = await self._connect()
        # A command of two words, as redis-py's clients take it.
        words = str(command[0]).split()
        packed = hiredis.pack_command((*words, *command[1:]))  # type: ignore[arg-type]
        return await link.send(packed)

    async def aclose(self) -> None:
        """Close the connection; commands that wait fail."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._link is not None:
            await self._link.close()

    async def _connect(self) -> _Link:
        # All that wait share one attempt, however long it takes.
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connected())
        return await asyncio.shield(self._connecting)

    async def _connected(self) -> _Link:
        connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await connection.connect()
        except TimeoutError:
            await connection.disconnect(nowait=True)
            raise redis.TimeoutError("The store did not accept the connection in time.") from None
        finally:
            self._connecting = None
        self._link = _Link(connection, self._timeout_s)
        return self._link


class _Link(asyncio.Protocol):
    """One connection, until it breaks.

    redis-py has connected it and signed in; then its transport delivers here, because asyncio's
    stream classes cost more than the reading.
    """

    def __init__(self, connection: Any, timeout_s: float) -> None:
        self.broken = ""
        self._connection = connection
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._reader = hiredis.Reader(
            protocolError=redis.InvalidResponse,
            replyError=connection._parser.parse_error,
            notEnoughData=_INCOMPLETE,
        )
        transport: asyncio.Transport = connection._writer.transport
        transport.set_protocol(self)
        self._writer = StepWriter(transport, self._loop)
        self._timer = self._loop.call_later(_CHECK_S, self._check)

    def send(self, packed: bytes) -> asyncio.Future[Any]:
        if self.broken:
            raise redis.ConnectionError(self.broken)
        if len(self._waiting) >= WAITING_MAX:
            raise redis.ConnectionError("Too many commands wait for the store.")
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append((answer, self._loop.time()))
        self._writer.write(packed)
        return answer

    async def close(self) -> None:
        self._break(redis.ConnectionError("The connection was closed."))
        await self._closing

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (answer := self._reader.gets()) is not _INCOMPLETE:
                waiting, _ = self._waiting.popleft()
                # Whoever waited may have been canceled; the answer had to be read all the same.
                if waiting.done():
                    continue
                if isinstance(answer, redis.RedisError):
                    waiting.set_exception(answer)
                else:
                    waiting.set_result(answer)
        except (redis.RedisError, IndexError) as error:
            self._break(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._break(exc or redis.ConnectionError("The store closed it."))

    def _check(self) -> None:
        if self._waiting and self._loop.time() - self._waiting[0][1] > self._timeout_s:
            self._break(redis.TimeoutError(f"No answer from the store in {self._timeout_s} s."))
        if not self.broken:
            self._timer = self._loop.call_later(_CHECK_S, self._check)

    def _break(self, error: Exception) -> None:
        if self.broken:
            return
        self.broken = f"The connection to the store is lost: {error}"
        self._timer.cancel()
        for waiting, _ in self._waiting:
            if not waiting.done():
                waiting.set_exception(redis.ConnectionError(self.broken))
        self._waiting.clear()
        self._closing = self._loop.create_task(self._connection.disconnect(nowait=True))
