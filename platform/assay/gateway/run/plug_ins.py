"""Calls of other packages' code, in threads with a time limit and a maximum number per task.

Tasks of other packages parse requests and render responses in this process. On the event loop, an
endless loop in them would block every request, and a `SystemExit` would end the process. Imports
are limited to the package's own requirements, even late ones, because the digest of its code covers
only those.
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
# Concurrent calls of one task; a call that never ends keeps its place.
AT_ONCE = 8


class TookTooLong(BaseException):
    """Raised asynchronously in the thread of a call that exceeded its time limit."""


class PlugInDesk:
    """Limits the calls and threads that each task of another package uses in this process."""

    def __init__(self) -> None:
        self._places: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(AT_ONCE)
        )

    async def call(self, task: str, function: Callable[..., T], *arguments: Any) -> T:
        """Return what a function of the task's package returns.

        Raises:
            Exception: any exception of the function; RuntimeError in place of one that would end
                this process.
            Unavailable: it took longer than `SECONDS`, or all places of the task are taken.
        """
        places = self._places[task]
        try:
            async with asyncio.timeout(SECONDS):
                await places.acquire()
        except TimeoutError:
            raise _unavailable(task, "is busy") from None
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        call = _Call(function, arguments, task_code(task) or NO_PACKAGES)

        def end() -> None:
            places.release()
            if not answer.done():
                call.hand_over(answer)

        def run() -> None:
            call.run()
            # The loop is closed if the process is ending.
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
        self, function: Callable[..., Any], arguments: tuple[Any, ...], code: TaskCode
    ) -> None:
        self._function, self._arguments = function, arguments
        self._imports = CODE.limited() if code.packages else nullcontext()
        self._lock = threading.Lock()
        self._over = False
        self._result: Any = None
        self._error: Exception | None = None

    def run(self) -> None:
        """Call the function and store its result or exception."""
        try:
            with self._imports:
                self._result = self._function(*self._arguments)
        except Exception as error:
            self._error = error
        except BaseException as error:
            self._error = RuntimeError(f"The package raised {type(error).__name__}.")
        finally:
            with self._lock:
                self._over = True

    def hand_over(self, answer: asyncio.Future[Any]) -> None:
        """Set the result or exception of `answer`."""
        if self._error is None:
            answer.set_result(self._result)
        else:
            answer.set_exception(self._error)

    def interrupt(self, thread: threading.Thread) -> None:
        """Raise TookTooLong in the thread if the call still runs. C code is not interrupted."""
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
