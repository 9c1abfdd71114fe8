"""Runs as processes of this machine, forked from a server that has imported torch once.

Importing torch and transformers costs seconds of CPU; a fork of a process that has them costs none.
The server is the standard library's (`multiprocessing`, method forkserver).
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import psutil

from governance.errors import InvalidInput, Unavailable
from workers.launchers.memory import GIB, Group, Limit, Watch, delegated_group
from workers.launchers.protocol import Ended, last_lines
from workers.run.forked import run_forked
from workers.run.order import Resources

_PRELOADED = "workers.run.preload"


@dataclass(frozen=True, slots=True)
class _Run:
    process: ForkServerProcess
    folder: Path
    memory: Group | Watch | None


class LocalLauncher:
    """Implements `workers.launchers.protocol.Launcher`. Its runs end with this process."""

    poll_s = 0.05

    def __init__(self, default_memory: int | None = None) -> None:
        """`default_memory` is the bytes that a job may use that requests none; None: no limit."""
        self._default_memory = default_memory
        self._groups = delegated_group()
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([_PRELOADED])
        self._runs: dict[str, _Run] = {}
        self._lock = threading.Lock()
        # Before `multiprocessing` waits for them at the end of this process.
        atexit.register(self._end_all)

    def submit(self, folder: Path, resources: Resources) -> str:
        """Fork a process for the run, which starts torchrun for several devices.

        The first one waits for the server's imports.

        Raises:
            InvalidInput: it requests several machines.
            Unavailable: its memory cannot be limited now.
        """
        if resources.nodes > 1:
            raise InvalidInput(f"This machine cannot run a job on {resources.nodes} machines.")
        limit = self._limit(resources)
        memory = self._group(folder, limit)
        process = self._context.Process(
            target=run_forked,
            args=(str(folder), str(memory.path) if memory else ""),
            name="assay-run",
        )
        # Not by two threads at once: the server starts with the first.
        try:
            with self._lock:
                process.start()
        except BaseException:
            if memory is not None:
                memory.close()
            raise
        handle = str(process.pid)
        self._runs[handle] = _Run(process, folder, memory or _watch(int(handle), limit))
        return handle

    def poll(self, handle: str) -> Ended | None:
        """Return the exit status of the run's process, and whether it used too much memory."""
        run = self._runs[handle]
        if (status := run.process.exitcode) is None:
            return None
        excess = run.memory.excess() if run.memory else ""
        return Ended(status, sentence=excess, retry=not excess)

    def works(self, handle: str) -> bool:
        """Return True: a process starts at once."""
        return True

    def end_earlier(self, folder: Path) -> None:
        """Return at once: a run ends with its supervisor."""

    def runs(self) -> dict[str, Path]:
        """Return nothing: no run is left behind."""
        return {}

    def cancel(self, handle: str, *, kill: bool = False) -> None:
        """Signal the run; with `kill` its whole group."""
        run = self._runs[handle]
        if run.process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(handle), signal.SIGKILL if kill else signal.SIGTERM)
        if kill:
            _end_group(int(handle))

    def logs(self, handle: str) -> str:
        """Return the last lines of the run's log."""
        return last_lines(self._runs[handle].folder)

    def forget(self, handle: str) -> None:
        """Wait for the run's process, and end what it started and left behind."""
        run = self._runs.pop(handle)
        run.process.join()
        run.process.close()
        _end_group(int(handle))
        if run.memory is not None:
            run.memory.close()

    def _limit(self, resources: Resources) -> Limit | None:
        if resources.memory_gib is not None:
            return Limit(resources.memory_gib * GIB, requested=True)
        if self._default_memory is not None:
            return Limit(self._default_memory, requested=False)
        return None

    def _group(self, folder: Path, limit: Limit | None) -> Group | None:
        if self._groups is None or limit is None:
            return None
        try:
            return Group(self._groups, f"run-{folder.parent.name}-{folder.name}", limit)
        except OSError as error:
            raise Unavailable(f"The run's memory cannot be limited: {error}.") from error

    def _end_all(self) -> None:
        for handle in list(self._runs):
            self.cancel(handle, kill=True)


def _watch(pid: int, limit: Limit | None) -> Watch | None:
    with contextlib.suppress(psutil.NoSuchProcess):  # It has ended.
        return Watch(psutil.Process(pid), limit) if limit else None
    return None


def _end_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
