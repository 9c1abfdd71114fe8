"""One connection to Valkey, shared by the commands of many requests.

With a connection pool, lending connections costs a gateway more processor time than the commands
themselves. Here the commands of one step of the event loop are sent together, and answers arrive in
the order of the commands. redis-py connects and authenticates (TLS, Unix sockets, users), hiredis
parses answers; this module only keeps their order.

Commands are never repeated: a reservation that was sent twice would be charged twice.
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

# Maximum of commands without an answer. More fail at once, so that a slow store delays only these.
WAITING_MAX = 4096
CONNECT_TIMEOUT_S = 2.0
_CHECK_S = 0.25
_INCOMPLETE = object()


class Pipeline:
    """Commands to one Redis, from one event loop.

    `timeout_s` limits the wait of the oldest command for its answer. After that the connection
    counts as dead: all waiting commands fail, and the next one opens a new connection.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._pool = redis.asyncio.ConnectionPool.from_url(
            url,
            socket_timeout=None,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        # Regardless of the URL: answers have different shapes in RESP3.
        self._pool.connection_kwargs["protocol"] = 2
        self._timeout_s = timeout_s
        self._link: _Link | None = None
        self._connecting: asyncio.Task[_Link] | None = None

    async def execute_command(self, *command: str | bytes | int | float) -> Any:
        """Return the answer, with texts as bytes.

        Raises:
            redis.RedisError: the answer is an error, or did not arrive.
        """
        link = self._link
        if link is None or link.broken:
            link = await self._connect()
        # A command may have two words, as in redis-py's clients.
        words = str(command[0]).split()
        packed = hiredis.pack_command((*words, *command[1:]))  # type: ignore[arg-type]
        return await link.send(packed)

    async def aclose(self) -> None:
        """Close the connection; waiting commands fail."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        if self._link is not None:
            await self._link.close()

    async def _connect(self) -> _Link:
        # All waiting commands share one attempt.
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

    redis-py connects and authenticates; then the transport delivers to this protocol directly,
    because asyncio's stream classes cost more than the parsing.
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
                # The waiting request may have been canceled; its answer must be read anyway.
                if waiting.done():
                    continue
                if isinstance(answer, redis.RedisError):
                    waiting.set_exception(answer)
                else:
                    waiting.set_result(answer)
        except (redis.RedisError, IndexError) as error:
            self._break(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._break(exc or redis.ConnectionError("The store closed the connection."))

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
