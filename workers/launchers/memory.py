"""Limits of memory for the processes of one run on this machine.

The kernel keeps a limit where this process may make control groups of version 2. Elsewhere a thread
measures the run's processes, and kills them.
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
# The worker's own control group, where it may make others next to it (`DelegateSubgroup` in
# deploy/systemd).
WORKER_GROUP = "assay-worker"
_WATCH_S = 0.5
_REMOVE_S = 5.0
# Memory that ends with the process, and none of the files that it has mapped: the kernel drops
# those when memory is needed. What several processes share, such as libraries that were imported
# before a fork, counts once.
_KEPT = re.compile(rb"^(?:Pss_Anon|Pss_Shmem|SwapPss):\s+(\d+) kB", re.MULTILINE)
_USED = re.compile(rb"^(?:VmRSS|VmSwap):\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Limit:
    """Bytes that one run may use; `requested` is false for the machine's default."""

    size: int
    requested: bool

    def sentence(self, used: int) -> str:
        """Return why a run that used more was ended."""
        default = "" if self.requested else ", the default of this machine"
        return (
            f"The run used {used / GIB:.1f} GiB of memory; its limit is {self.size / GIB:.1f} GiB"
            f"{default}. Request more memory (memory_gib), or use a smaller batch."
        )


def own_group() -> Path:
    """Return this process's control group of version 2. Raises OSError where there is none."""
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        if line.startswith("0::/"):
            return GROUPS / line[4:]
    raise FileNotFoundError("This process has no control group of version 2.")


def delegated_group() -> Path | None:
    """Return the control group below which this process may make others that limit memory."""
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
        """Make it. Raises OSError."""
        self.path = parent / name
        self._limit = limit
        self.path.mkdir(exist_ok=True)
        (self.path / "memory.max").write_text(str(limit.size))
        # All processes of the run end together.
        (self.path / "memory.oom.group").write_text("1")
        with contextlib.suppress(FileNotFoundError):  # A kernel without swap.
            (self.path / "memory.swap.max").write_text("0")

    def excess(self) -> str:
        """Return a sentence about a run that reached its limit; empty for all others."""
        events = (self.path / "memory.events").read_text().split()
        # `oom_kill` would count kills for lack of memory of the whole machine, too.
        if events[events.index("oom") + 1] == "0":
            return ""
        return self._limit.sentence(self._limit.size)

    def close(self) -> None:
        """Kill all processes of the run that are left, and remove the group."""
        with contextlib.suppress(OSError):  # Linux before 5.14 has no such file.
            (self.path / "cgroup.kill").write_text("1")
        until = time.monotonic() + _REMOVE_S
        while time.monotonic() < until:
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
        """Return a sentence about a run that was ended; empty for all others."""
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
    """Return the bytes of memory that processes take, if they take more than `most`; else 0."""
    # This is cheap to read, and never less than what is measured exactly.
    if _sum(_used, processes) <= most:
        return 0
    used = _sum(_kept, processes)
    return used if used > most else 0


def tree_of(pid: int) -> list[psutil.Process]:
    """Return a process and all that it started; nothing once it has ended."""
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
        with contextlib.suppress(psutil.Error, OSError):  # It has ended meanwhile.
            total += measured(process)
    return total


def _used(process: psutil.Process) -> int:
    """Return its resident memory and what of it is in swap."""
    status = Path(f"/proc/{process.pid}/status").read_bytes()
    return 1024 * sum(map(int, _USED.findall(status)))


def _kept(process: psutil.Process) -> int:
    try:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_bytes()
    except PermissionError:
        return _used(process)  # A process can hide its maps from its own user.
    return 1024 * sum(map(int, _KEPT.findall(rollup)))
