"""Watchdog of a process of engines: its steps, memory, child processes and output."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO

import psutil

from workers.launchers.memory import GIB, memory_of, tree_of

LOOK_S = 0.25
# Rounds of killing child processes, which may start others during a round.
_ROUNDS = 50
# Limit on the output of one process per minute; output beyond it is counted and dropped.
OUTPUT_BYTES, OUTPUT_S = 64 * 1024, 60.0
_LINE_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """Limits of one process of engines, which is killed if it exceeds one; None means no limit.

    `batch_s` limits one step of an engine, such as a batch, and the time without a sign of life
    while requests wait; `load_s` the loading of a model; `memory` the bytes of the process and its
    children together; `processes` the number of its children.
    """

    batch_s: float | None = None
    load_s: float | None = None
    memory: int | None = None
    processes: int | None = None


NO_LIMITS = ProcessLimits()


class Watch:
    """A thread that ends one process once it exceeds a limit.

    Every second the process reports how long each of its engines has worked on its current step.
    A process that does not report, because a step holds the interpreter's lock, also hangs.
    """

    def __init__(
        self,
        pid: int,
        limits: ProcessLimits,
        *,
        waits: Callable[[], bool],
        end: Callable[[str], None],
    ) -> None:
        """`waits` returns whether a request waits for the process; `end` kills it for a reason."""
        self._pid, self._limits = pid, limits
        self._waits, self._end = waits, end
        self._over = threading.Event()
        self._longest = 0.0
        self._heard = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="engine-watch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def beat(self, ages: Mapping[str, float]) -> None:
        """Record the seconds that each engine has worked on its current step."""
        self._longest = max((float(age) for age in ages.values()), default=0.0)
        self._heard = time.monotonic()

    def close(self) -> None:
        """Stop watching."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(LOOK_S):
            if reason := self._excess():
                self._end(reason)
                return

    def _excess(self) -> str:
        """Return a sentence on the limit that the process exceeds; empty if there is none."""
        limits = self._limits
        if not self._waits():
            self._heard = max(self._heard, time.monotonic())
        if limits.batch_s is not None:
            if self._longest > limits.batch_s:
                return f"A batch took longer than {limits.batch_s:g} s."
            if time.monotonic() - self._heard > limits.batch_s:
                return f"It gave no sign of life for {limits.batch_s:g} s."
        if limits.memory is None and limits.processes is None:
            return ""
        processes = tree_of(self._pid)
        if limits.processes is not None and len(processes) > limits.processes + 1:
            return f"It started more than {limits.processes} processes."
        if limits.memory is not None and (used := memory_of(processes, limits.memory)):
            size = limits.memory / GIB
            return f"It used {used / GIB:.1f} GiB of memory; its limit is {size:.1f} GiB."
        return ""


def end_tree(pid: int) -> None:
    """Kill a process that leads a session, and all of its descendants.

    It is stopped first and killed last, because orphaned descendants are reparented to it.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    for _ in range(_ROUNDS):
        children = [each for each in tree_of(pid)[1:] if _kill(each)]
        if not children:
            break
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _kill(process: psutil.Process) -> bool:
    """Kill a process; return False if it is already dead or cannot be killed."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        process.kill()
    except psutil.Error:
        return False
    return True


def forward_output(pipe: IO[bytes], name: str) -> None:
    """Forward a process's output to this process's standard error, with a limit per minute."""
    thread = threading.Thread(target=_forward, args=(pipe, name), name="engine-output", daemon=True)
    thread.start()


def _forward(pipe: IO[bytes], name: str) -> None:
    since, left, dropped = time.monotonic(), OUTPUT_BYTES, 0
    with pipe:
        while line := pipe.readline(_LINE_BYTES):
            now = time.monotonic()
            if now - since > OUTPUT_S:
                if dropped:
                    _print(f"{name} printed {dropped} bytes more, which were dropped.\n".encode())
                since, left, dropped = now, OUTPUT_BYTES, 0
            if len(line) > left:
                dropped += len(line)
                continue
            left -= len(line)
            _print(line)


def _print(line: bytes) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
