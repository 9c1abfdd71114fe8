"""Content for the request log, captured while requests run and written after their answers.

A request hands over references; a thread builds, bounds and encrypts the content, and writes it to
the database. The queue is bounded: content without room is dropped and counted, and no request
waits for it. A process that is killed loses the content in its queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import StringIO
from typing import Any, TypeVar

from django.db import Error, connection

from assay.gateway.access.call import Call
from assay.gateway.monitoring.metrics import CONTENT_DROPPED
from governance.request_log.content import CONTENT_MAX
from governance.request_log.writing import (
    UNWRITTEN_FOR,
    Entry,
    departments_logged_in_full,
    entries_write,
)
from registry.catalog.endpoints import Plan
from workers.references import is_reference, replace_parts
from workers.request_logs import about
from workers.wire import Delta

logger = logging.getLogger(__name__)
T = TypeVar("T")
FLUSH_S = 1.0
# Requests that one transaction writes.
WRITTEN_AT_ONCE = 100
# Bounds of the queue; one department has at most half of each.
WAITING_MAX = 4_000
BYTES_MAX = 64 * 1024 * 1024
_STOP_S = 5.0
# A number in a list: an object and its pointer.
_NUMBER_BYTES = 32


class Captured:
    """Content of one request while it runs: its inputs, and what arrived from the worker."""

    __slots__ = ("_calls", "_room", "_texts", "call", "inputs", "plan")

    def __init__(self, call: Call, plan: Plan) -> None:
        self.call, self.plan = call, plan
        self.inputs: dict[str, Any] = {}
        self._room = CONTENT_MAX
        self._texts: defaultdict[int, StringIO] = defaultdict(StringIO)
        self._calls: list[tuple[int, tuple[int, str, str]]] = []

    @property
    def department(self) -> str:
        """Slug of the department that pays for the request."""
        return "" if self.call.key is None else self.call.key.department or ""

    @property
    def size(self) -> int:
        """Estimated bytes in memory."""
        done = self.call.done
        results = 0 if done is None else _bytes_of(done.results)
        # The prompt can be longer than the body: it has the earlier turns of a conversation.
        prompt = self.call.received + 4 * self.plan.prompt_tokens
        return prompt + CONTENT_MAX - self._room + results

    def add(self, delta: Delta) -> None:
        """Keep a piece of the answer, until the content reaches `CONTENT_MAX`."""
        if self._room <= 0:
            return
        if delta.text:
            self._room -= len(delta.text)
            self._texts[delta.index].write(delta.text)
        if delta.call is not None:
            self._room -= len(delta.call[1]) + len(delta.call[2])
            self._calls.append((delta.index, delta.call))

    def entry(self) -> Entry:
        """Return the entry of the log. Called in the writer's thread."""
        call, plan = self.call, self.plan
        return Entry(
            department=self.department,
            request_id=call.request_id,
            occurred_at=call.occurred_at,
            user=plan.user,
            person=None if call.key is None else call.key.person,
            content={
                "prompt": {"inputs": _described(self.inputs), "options": plan.options.to_wire()},
                "answer": self._answer(),
            },
        )

    def _answer(self) -> dict[str, Any]:
        calls: defaultdict[int, dict[int, list[str]]] = defaultdict(dict)
        for index, (number, name, arguments) in self._calls:
            parts = calls[index].setdefault(number, ["", ""])
            parts[0] += name
            parts[1] += arguments
        choices = [
            {
                "index": index,
                "text": self._texts[index].getvalue() if index in self._texts else "",
                "tool_calls": [
                    {"name": name, "arguments": arguments}
                    for _, (name, arguments) in sorted(calls[index].items())
                ],
            }
            for index in sorted(self._texts.keys() | calls.keys())
        ]
        done = self.call.done
        answer: dict[str, Any] = {"outcome": self.call.outcome, "choices": choices}
        if done is not None:
            answer["finish_reason"] = done.finish_reason
            if done.results:
                answer["results"] = _described(done.results)
        return answer


class RequestLog:
    """The queue of one gateway process. Start and stop it on its event loop."""

    def __init__(self) -> None:
        self._full: frozenset[str] = frozenset()
        self._queue: deque[Captured] = deque()
        # Requests and bytes in the queue, by department; the empty slug stands for all.
        self._requests: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="assay-request-log")
        self._stopping = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    def begin(self, call: Call, plan: Plan) -> Captured | None:
        """Return an object for the content of a request; None unless its department logs it."""
        if call.key is None or call.key.department not in self._full or plan.counts_only:
            return None
        return Captured(call, plan)

    def put(self, captured: Captured) -> None:
        """Queue the content of a request that ended, or count it as dropped. Never blocks."""
        for name, share in (("", 1), (captured.department, 2)):
            if (
                self._requests[name] >= WAITING_MAX // share
                or self._bytes[name] + captured.size > BYTES_MAX // share
            ):
                self._dropped[captured.department] += 1
                CONTENT_DROPPED.inc()
                return
        self._queue.append(captured)
        self._count(captured, 1)

    def _count(self, captured: Captured, change: int) -> None:
        for name in ("", captured.department):
            self._requests[name] += change
            self._bytes[name] += change * captured.size
            if not self._requests[name]:
                del self._requests[name], self._bytes[name]

    def start(self) -> None:
        self._writer = asyncio.create_task(self._write_until_stopped())

    async def stop(self) -> None:
        """Write the queue, for a few seconds at most."""
        self._stopping.set()
        if self._writer is not None:
            await asyncio.wait((self._writer,), timeout=_STOP_S)
        if self._queue:
            logger.warning("The content of %d requests was not logged.", len(self._queue))
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    async def _write_until_stopped(self) -> None:
        while not self._stopping.is_set():
            await self.read_departments()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._stopping.wait()
            await self.flush()

    async def read_departments(self) -> None:
        """Read which departments log content. Each write checks it again."""
        try:
            self._full = await self._in_thread(departments_logged_in_full)
        except Error:
            logger.warning("The departments that log content could not be read.")

    async def flush(self) -> None:
        """Write the content that is queued now. If the database fails, it stays in the queue."""
        waiting = len(self._queue)
        while waiting > 0 or self._dropped:
            batch = [self._queue[number] for number in range(min(waiting, WRITTEN_AT_ONCE))]
            dropped, self._dropped = self._dropped, Counter()
            try:
                await self._in_thread(partial(_write, batch, dropped))
            except Error:
                self._dropped += dropped
                logger.warning("Content of %d requests waits for the database.", len(self._queue))
                return
            except Exception as error:
                # The message could contain content.
                name = type(error).__name__
                logger.error("Content of %d requests is not logged: %s.", len(batch), name)
                CONTENT_DROPPED.inc(len(batch))
            for captured in batch:
                self._queue.popleft()
                self._count(captured, -1)
            waiting -= len(batch)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, _closed, work)


def _closed(work: Callable[[], T]) -> T:
    try:
        return work()
    finally:
        connection.close()


def _write(batch: list[Captured], counted: Counter[str]) -> None:
    entries, dropped = [], counted.copy()
    oldest = time.time() - UNWRITTEN_FOR.total_seconds()
    for captured in batch:
        if captured.call.occurred_at < oldest:
            dropped[captured.department] += 1
            CONTENT_DROPPED.inc()
            continue
        try:
            entries.append(captured.entry())
        except Exception as error:
            logger.error(
                "Content of request %s is not logged: %s.",
                captured.call.request_id,
                type(error).__name__,
                extra=about(captured.call.request_id),
            )
            dropped[captured.department] += 1
            CONTENT_DROPPED.inc()
    entries_write(entries, dropped)


def _described(value: Any) -> Any:
    """Return a copy with references to media replaced by their digests, types and sizes."""
    return replace_parts(
        value,
        is_reference,
        lambda media: {name: media[name] for name in ("sha256", "content_type", "size")},
    )


def _bytes_of(value: Any) -> int:
    """Return the estimated bytes in memory of results."""
    if isinstance(value, dict):
        return sum(map(_bytes_of, value.values()))
    if isinstance(value, list) and not (value and isinstance(value[0], (int, float))):
        return sum(map(_bytes_of, value))
    if isinstance(value, list):
        return _NUMBER_BYTES * len(value)
    return len(value) if isinstance(value, str) else _NUMBER_BYTES
