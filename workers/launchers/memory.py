"""Memory limits for the processes of one run on this machine.

The kernel enforces the limit if this process may create control groups of version 2. Otherwise a
thread measures the run's processes and kills them.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

GIB = 1024**3
GROUPS = Path("/sys/fs/cgroup")
# Name of the worker's own control group if it may create siblings (`DelegateSubgroup` in
# deploy/systemd).
WORKER_GROUP = "assay-worker"
_WATCH_S = 0.5
_REMOVE_S = 5.0
# Memory that ends with the process. Mapped files do not count, because the kernel drops them when
# memory is needed. Memory that several processes share, such as libraries that were imported before
# a fork, counts once.
_KEPT = re.compile(rb"^(?:Pss_Anon|Pss_Shmem|SwapPss):\s+(\d+) kB", re.MULTILINE)
_USED = re.compile(rb"^(?:VmRSS|VmSwap):\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Limit:
    """Memory limit of one run in bytes; `requested` is false for the machine's default."""

    size: int
    requested: bool

    def sentence(self, used: int) -> str:
        """Return the reason for ending a run that used more."""
        default = "" if self.requested else ", the default of this machine"
        return (
            f"The run used {used / GIB:.1f} GiB of memory; its limit is {self.size / GIB:.1f} GiB"
            f"{default}. Request more memory (memory_gib), or use a smaller batch."
        )


def own_group() -> Path:
    """Return this process's control group of version 2. Raises OSError if it has none."""
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        if line.startswith("0::/"):
            return GROUPS / line[4:]
    raise FileNotFoundError("This process has no control group of version 2.")


def delegated_group() -> Path | None:
    """Return the control group in which this process may create groups with memory limits."""
    try:
        own = own_group()
        if own.name != WORKER_GROUP:
            return None
        (own.parent / "cgroup.subtree_control").write_text("+memory")
    except OSError:
        return None
    return own.parent


class Group:
    """A control group for one run, which the run's first process enters itself."""

    def __init__(self, parent: Path, name: str, limit: Limit) -> None:
        """Create the group. Raises OSError."""
        self.path = parent / name
        self._limit = limit
        self.path.mkdir(exist_ok=True)
        (self.path / "memory.max").write_text(str(limit.size))
        # Out of memory, the kernel kills all processes of the run together.
        (self.path / "memory.oom.group").write_text("1")
        with contextlib.suppress(FileNotFoundError):  # A kernel without swap.
            (self.path / "memory.swap.max").write_text("0")

    def excess(self) -> str:
        """Return a sentence if the run reached its limit; otherwise empty."""
        events = (self.path / "memory.events").read_text().split()
        # `oom_kill` would also count kills because the whole machine ran out of memory.
        if events[events.index("oom") + 1] == "0":
            return ""
        return self._limit.sentence(self._limit.size)

    def close(self) -> None:
        """Kill all remaining processes of the run, and remove the group."""
        with contextlib.suppress(OSError):  # Linux before 5.14 does not have this file.
            (self.path / "cgroup.kill").write_text("1")
        deadline = time.monotonic() + _REMOVE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self.path.rmdir()
                return
            time.sleep(0.02)


class Watch:
    """A thread that measures the processes of a run and kills them above the limit."""

    def __init__(self, process: psutil.Process, limit: Limit) -> None:
        self._process, self._limit = process, limit
        self._sentence = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="run-memory", daemon=True)
        self._thread.start()

    def excess(self) -> str:
        """Return a sentence if this thread ended the run; otherwise empty."""
        return self._sentence

    def close(self) -> None:
        """End the thread."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_WATCH_S):
            processes = _tree(self._process)
            if not (used := memory_of(processes, self._limit.size)):
                continue
            self._sentence = self._limit.sentence(used)
            for process in processes:
                with contextlib.suppress(psutil.Error):
                    process.send_signal(signal.SIGKILL)
            return


def memory_of(processes: list[psutil.Process], most: int) -> int:
    """Return the bytes of memory that processes use, if more than `most`; else 0."""
    # `_used` is cheap to read, and never less than the exact measurement.
    if _sum(_used, processes) <= most:
        return 0
    used = _sum(_kept, processes)
    return used if used > most else 0


def tree_of(pid: int) -> list[psutil.Process]:
    """Return a process and all of its descendants; an empty list if it has ended."""
    try:
        return _tree(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return []


def _tree(first: psutil.Process) -> list[psutil.Process]:
    try:
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _sum(measured: Callable[[psutil.Process], int], processes: list[psutil.Process]) -> int:
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):  # The process has just ended.
            total += measured(process)
    return total


def _used(process: psutil.Process) -> int:
    """Return a process's memory in RAM and in swap, in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_bytes()
    return 1024 * sum(map(int, _USED.findall(status)))


def _kept(process: psutil.Process) -> int:
    try:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_bytes()
    except PermissionError:
        return _used(process)  # A process can hide its memory maps from its own user.
    return 1024 * sum(map(int, _KEPT.findall(rollup)))
