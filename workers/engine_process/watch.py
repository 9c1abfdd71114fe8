"""Watch over a process of engines: its steps, its memory, what it starts and what it prints."""

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
# Rounds in which processes are ended that start others meanwhile.
_ROUNDS = 50
# What one process may print in a minute; the rest is counted and dropped.
OUTPUT_BYTES, OUTPUT_S = 64 * 1024, 60.0
_LINE_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """Limits of one process of engines, beyond which it is killed; None sets none.

    `batch_s` is for one step of an engine, such as a batch, and for the time without a sign of life
    while requests wait; `load_s` for the load of a model; `memory` in bytes, for all that the
    process starts too; `processes` for how many it starts.
    """

    batch_s: float | None = None
    load_s: float | None = None
    memory: int | None = None
    processes: int | None = None


NO_LIMITS = ProcessLimits()


class Watch:
    """A thread that ends one process once it is beyond a limit.

    The process says every second how long each of its engines has worked on its present step. One
    that says nothing, because a step holds the interpreter's lock, hangs as well.
    """

    def __init__(
        self,
        pid: int,
        limits: ProcessLimits,
        *,
        waits: Callable[[], bool],
        end: Callable[[str], None],
    ) -> None:
        """`waits` tells whether a request waits for the process; `end` kills it for a reason."""
        self._pid, self._limits = pid, limits
        self._waits, self._end = waits, end
        self._over = threading.Event()
        self._longest = 0.0
        self._heard = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="engine-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def beat(self, ages: Mapping[str, float]) -> None:
        """Note how long the engines have worked on their present steps, in seconds."""
        self._longest = max((float(age) for age in ages.values()), default=0.0)
        self._heard = time.monotonic()

    def close(self) -> None:
        """Watch no more."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(LOOK_S):
            if reason := self._excess():
                self._end(reason)
                return

    def _excess(self) -> str:
        """Return the limit that the process is beyond, as a sentence; empty for none."""
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
    """Kill a process that leads a session, and all that it started.

    It is stopped first and killed last: its orphans come to it, so that it leads to all of them.
    """
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    for _ in range(_ROUNDS):
        started = [each for each in tree_of(pid)[1:] if _kill(each)]
        if not started:
            break
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _kill(process: psutil.Process) -> bool:
    """Kill a process; return False when it is dead and only not reaped yet."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        process.kill()
    except psutil.Error:
        return False
    return True


def forward_output(pipe: IO[bytes], name: str) -> None:
    """Write what a process prints to this one's standard error, within a bound for each minute."""
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
