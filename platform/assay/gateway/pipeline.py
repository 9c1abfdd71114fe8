"""One connection to Valkey for the commands of many requests at a time.

A pool lends a connection to one command after another, which costs a gateway more processor time
than the commands themselves. Here every command goes out at once, together with the others of the
same step of the event loop, and answers come back in the order of the commands. redis-py connects,
signs in (TLS, Unix sockets, users) and reads answers; only their order is kept here.

No command is ever repeated: a reservation that was sent twice would be charged twice.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import Any

import hiredis
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

# Commands without an answer. More fail at once, so that a slow store holds up a bounded number.
WAITING_MAX = 4096
CONNECT_TIMEOUT_S = 2.0
_CHECK_S = 0.25


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


class _Link:
    """One connection, until it breaks."""

    def __init__(self, connection: Any, timeout_s: float) -> None:
        self.broken = ""
        self._connection = connection
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._outgoing: list[bytes] = []
        self._wake = asyncio.Event()
        self._tasks = [asyncio.create_task(task) for task in (self._write(), self._read())]
        self._timer = self._loop.call_later(_CHECK_S, self._check)

    def send(self, packed: bytes) -> asyncio.Future[Any]:
        if self.broken:
            raise redis.ConnectionError(self.broken)
        if len(self._waiting) >= WAITING_MAX:
            raise redis.ConnectionError("Too many commands wait for the store.")
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append((answer, self._loop.time()))
        self._outgoing.append(packed)
        self._wake.set()
        return answer

    async def close(self) -> None:
        self._break(redis.ConnectionError("The connection was closed."))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._connection.disconnect(nowait=True)

    async def _write(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                outgoing, self._outgoing = self._outgoing, []
                await self._connection.send_packed_command(outgoing, check_health=False)
        except (redis.RedisError, OSError) as error:
            self._break(error)

    async def _read(self) -> None:
        read = self._connection.read_response
        try:
            while True:
                try:
                    answer, failure = await read(timeout=math.inf), None
                except redis.ResponseError as error:
                    answer, failure = None, error
                waiting, _ = self._waiting.popleft()
                # Whoever waited may have been cancelled; the answer had to be read all the same.
                if waiting.done():
                    continue
                if failure is None:
                    waiting.set_result(answer)
                else:
                    waiting.set_exception(failure)
        except (redis.RedisError, OSError, IndexError) as error:
            self._break(error)

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
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self._closing = self._loop.create_task(self._connection.disconnect(nowait=True))
