"""Launcher of runs as processes on this machine, forked from a process that has imported torch.

Importing torch and transformers takes seconds of CPU time, which a fork saves. The process from
which runs fork (`workers/run/forked.py`) has no address under which others could reach it, and
shares none of this process's environment, memory and files.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from governance.errors import InvalidInput, Unavailable
from registry.sandbox import landlock
from workers.engine_process.confinement import code_allowed
from workers.launchers.memory import GIB, Group, Limit, Watch, delegated_group
from workers.launchers.protocol import ProcessExit, last_lines
from workers.run.environment import run_environment
from workers.run.forked import NUMBER, Start
from workers.run.order import CHECKPOINTS, Resources

_FORKED = "workers.run.forked"
# The first run waits for the imports of the process from which runs fork.
START_S = 300.0
# A source that has closed its socket ends within this time.
_END_S = 10.0


@dataclass(frozen=True, slots=True)
class _Run:
    channel: socket.socket
    folder: Path
    scratch: Path
    memory: Group | Watch | None


class LocalLauncher:
    """Implements `workers.launchers.protocol.Launcher`. Its runs end with this process."""

    poll_s = 0.05

    def __init__(
        self,
        default_memory: int | None = None,
        *,
        relay: Callable[[Path], socket.socket] | None = None,
    ) -> None:
        """`default_memory` is the limit in bytes for a job that requests none; None: no limit.
        `relay` makes the socket that the run in a folder inherits; the launcher closes its copy."""
        self._relay = relay
        self._default_memory = default_memory
        self._groups = delegated_group()
        self._source: tuple[socket.socket, subprocess.Popen[bytes]] | None = None
        self._runs: dict[str, _Run] = {}
        self._ended: dict[str, ProcessExit] = {}
        self._lock = threading.Lock()
        atexit.register(self.end_all)

    def submit(self, folder: Path, resources: Resources) -> str:
        """Fork a process for the run, which starts torchrun for several devices.

        The first run waits for the imports.

        Raises:
            InvalidInput: the job requests several machines.
            Unavailable: its memory cannot be limited now, or the process cannot be started.
        """
        if resources.nodes > 1:
            raise InvalidInput(f"This machine cannot run a job on {resources.nodes} machines.")
        limit = self._limit(resources)
        relay = self._relay(folder) if self._relay is not None else None
        try:
            return self._started(folder, resources, limit, relay)
        finally:
            if relay is not None:
                relay.close()

    def _started(
        self, folder: Path, resources: Resources, limit: Limit | None, relay: socket.socket | None
    ) -> str:
        memory = self._group(folder, limit)
        scratch = Path(tempfile.mkdtemp(prefix="assay-run-"))
        start = Start(
            folder=str(folder),
            scratch=str(scratch),
            group=str(memory.path) if memory else "",
            paths=_paths(folder, scratch),
            ranks=resources.processes > 1,
        )
        try:
            channel, pid = self._forked(start, relay)
        except BaseException as error:
            shutil.rmtree(scratch, ignore_errors=True)
            if memory is not None:
                memory.close()
            if isinstance(error, OSError):
                raise Unavailable(f"The run's process cannot be started: {error}.") from error
            raise
        handle = str(pid)
        self._runs[handle] = _Run(channel, folder, scratch, memory or _watch(pid, limit))
        return handle

    def poll(self, handle: str) -> ProcessExit | None:
        """Return the exit status of the run's process, and whether it used too much memory."""
        if (ended := self._ended.get(handle)) is not None:
            return ended
        run = self._runs[handle]
        try:
            message = run.channel.recv(NUMBER.size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            message = b""
        # Without a message, the process that waits for the run was killed, and the run with it.
        status = -signal.SIGKILL
        if len(message) == NUMBER.size:
            status = os.waitstatus_to_exitcode(NUMBER.unpack(message)[0])
        excess = run.memory.excess() if run.memory else ""
        self._ended[handle] = ProcessExit(status, sentence=excess, retry=not excess)
        return self._ended[handle]

    def works(self, handle: str) -> bool:
        """Return True: a process starts immediately."""
        return True

    def end_earlier(self, folder: Path) -> None:
        """Do nothing: a run ends with its supervisor."""

    def runs(self) -> dict[str, Path]:
        """Return an empty dictionary: runs end with their supervisor."""
        return {}

    def cancel(self, handle: str, *, kill: bool = False) -> None:
        """Send SIGTERM to the run; with `kill`, SIGKILL to its whole process group."""
        if self.poll(handle) is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(handle), signal.SIGKILL if kill else signal.SIGTERM)
        if kill:
            _end_group(int(handle))

    def logs(self, handle: str) -> str:
        """Return the last lines of the run's log."""
        return last_lines(self._runs[handle].folder)

    def forget(self, handle: str) -> None:
        """End the run and all remaining processes that it started."""
        run = self._runs.pop(handle)
        self._ended.pop(handle, None)
        run.channel.close()
        _end_group(int(handle))
        if run.memory is not None:
            run.memory.close()
        shutil.rmtree(run.scratch, ignore_errors=True)

    def _forked(self, start: Start, relay: socket.socket | None) -> tuple[socket.socket, int]:
        """Return the channel of a new run and its process ID. Raises OSError."""
        # The lock keeps two threads from starting the source at the same time.
        with self._lock:
            if self._source is not None and self._source[1].poll() is None:
                try:
                    return _fork(self._source[0], start, relay)
                except TimeoutError:
                    raise
                except OSError:
                    # An idle source ends by itself, perhaps without reading this message.
                    self._source[1].wait(_END_S)
            if self._source is not None:
                self._source[0].close()
            self._source = _source()
            return _fork(self._source[0], start, relay)

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

    def end_all(self) -> None:
        """Kill all runs."""
        for handle in list(self._runs):
            self.cancel(handle, kill=True)
        if self._source is not None:
            self._source[0].close()


def _fork(
    source: socket.socket, start: Start, relay: socket.socket | None
) -> tuple[socket.socket, int]:
    """Request a run; return its channel and process ID. Raises OSError if `source` ends first."""
    ours, theirs = socket.socketpair()
    try:
        with theirs:
            sockets = [theirs] if relay is None else [theirs, relay]
            socket.send_fds(source, [start.to_json()], [each.fileno() for each in sockets])
        ours.settimeout(START_S)
        message = ours.recv(NUMBER.size)
        if len(message) != NUMBER.size:
            raise OSError("it ended before the run began")
    except BaseException:
        ours.close()
        raise
    ours.settimeout(None)
    return ours, NUMBER.unpack(message)[0]


def _source() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start the process from which runs fork. Raises OSError."""
    ours, theirs = socket.socketpair()
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", _FORKED],
            stdin=theirs.fileno(),
            env={**run_environment(os.environ), "PYTHONPATH": paths},
            start_new_session=True,
        )
    return ours, process


def _paths(folder: Path, scratch: Path) -> dict[str, list[str]] | None:
    """Return the paths that a run may open: Python's code, its folder and its checkpoints."""
    if landlock.abi() < landlock.LEAST_ABI:
        return None
    own = [folder.resolve(), (folder / CHECKPOINTS).resolve(), scratch]
    return {**code_allowed(), "own": list(map(str, own))}


def _watch(pid: int, limit: Limit | None) -> Watch | None:
    with contextlib.suppress(psutil.NoSuchProcess):  # The run has ended.
        return Watch(psutil.Process(pid), limit) if limit else None
    return None


def _end_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
