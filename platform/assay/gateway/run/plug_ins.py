"""Calls of other packages' code: in threads, within a deadline, a few of each task at a time.

A task of another package reads requests and writes responses in this process. On the event loop, a
loop without end in it would hold up every request, and a `SystemExit` would end the process. It
imports what its package requires, also when it does so late: nothing else is in the digest of its
code.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import logging
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

from governance.errors import Unavailable
from registry.catalog import task_code
from registry.catalog.code import CODE, NO_PACKAGES, TaskCode

logger = logging.getLogger(__name__)
T = TypeVar("T")
SECONDS = 5.0
# Calls of one task at the same time; one that never ends keeps its place.
AT_ONCE = 8


class TookTooLong(BaseException):
    """Raised in a thread whose call is over its time, where Python's code runs in it."""


class PlugInDesk:
    """Bounds what the code of each task of another package takes of this process."""

    def __init__(self) -> None:
        self._places: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(AT_ONCE)
        )

    async def call(self, task: str, function: Callable[..., T], *given: Any) -> T:
        """Return what a function of the task's package returns.

        Raises:
            Exception: what it raises; RuntimeError in place of what would end this process.
            Unavailable: it took longer than `SECONDS`, or so many calls are under way.
        """
        places = self._places[task]
        try:
            async with asyncio.timeout(SECONDS):
                await places.acquire()
        except TimeoutError:
            raise _unavailable(task, "is busy") from None
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        call = _Call(function, given, task_code(task) or NO_PACKAGES)

        def end() -> None:
            places.release()
            if not answer.done():
                call.hand_over(answer)

        def run() -> None:
            call.run()
            # The loop has closed where the process ends.
            if not loop.is_closed():
                loop.call_soon_threadsafe(end)

        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(run,), name="plug-in", daemon=True)
        thread.start()
        try:
            async with asyncio.timeout(SECONDS):
                return await answer
        except TimeoutError:
            logger.error("The package of task %s took longer than %g s", task, SECONDS)
            call.interrupt(thread)
            raise _unavailable(task, f"took longer than {SECONDS:g} s") from None


class _Call:
    """One call, in a thread of its own."""

    def __init__(
        self, function: Callable[..., Any], given: tuple[Any, ...], code: TaskCode
    ) -> None:
        self._function, self._given = function, given
        self._imports = CODE.limited() if code.packages else nullcontext()
        self._lock = threading.Lock()
        self._over = False
        self._result: Any = None
        self._error: Exception | None = None

    def run(self) -> None:
        """Call the function and keep what it returns or raises."""
        try:
            with self._imports:
                self._result = self._function(*self._given)
        except Exception as error:
            self._error = error
        except BaseException as error:
            self._error = RuntimeError(f"The package raised {type(error).__name__}.")
        finally:
            with self._lock:
                self._over = True

    def hand_over(self, answer: asyncio.Future[Any]) -> None:
        """Give the result, or the exception, to who waits for it."""
        if self._error is None:
            answer.set_result(self._result)
        else:
            answer.set_exception(self._error)

    def interrupt(self, thread: threading.Thread) -> None:
        """Raise in the thread, if the call still runs. Code in C does not notice."""
        with self._lock:
            if not self._over:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread.ident or 0), ctypes.py_object(TookTooLong)
                )


def _unavailable(task: str, what: str) -> Unavailable:
    return Unavailable(
        f"The package of the task {task} {what}.",
        hint="Tell your operators: `assay doctor` and the log of the web process name the package.",
        retry_after=5,
    )
