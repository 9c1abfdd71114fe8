"""Processes on this machine: started with their own log, stopped with all their children, and
restarted if they exit unexpectedly.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from registry.sandbox.isolation import end_with_parent

# A part that ran for at least `STEADY_S` is restarted at once. If it ended sooner, it is restarted
# after a pause that doubles up to `LONGEST_PAUSE_S`.
STEADY_S = 60.0
LONGEST_PAUSE_S = 30.0


class Part(Protocol):
    """A part of an installation: a store or a process."""

    @property
    def log(self) -> Path: ...

    def start(self) -> None: ...

    def ended(self) -> bool:
        """Return true if it ended by itself."""
        ...

    def stop(self) -> None: ...


class Program:
    """One process of a command, which the kernel kills when this process ends.

    Args:
        command: its program and arguments.
        environment: all of its environment variables.
        log: file for its output, which only this user may read.
        folder: its working directory.
    """

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], log: Path, folder: Path
    ) -> None:
        self.command, self.environment, self.log, self.folder = command, environment, log, folder
        self.start()

    def start(self) -> None:
        with private_log(self.log) as output:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
                preexec_fn=end_with_parent,
            )

    def ended(self) -> bool:
        return self.process.poll() is not None

    def stop(self) -> None:
        stop_process_group(self.process)


class Watch:
    """Restarts a part whenever it has ended by itself."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._started = time.monotonic()
        self._pause = 0.0
        self._due: float | None = None

    def restarted(self) -> bool:
        """Restart the part if it ended and its pause is over; return true if it was restarted.

        Raises:
            Exception: the part cannot be started; a later call retries after a pause.
        """
        if not self._part.ended():
            return False
        now = time.monotonic()
        if self._due is None:
            steady = now - self._started >= STEADY_S
            self._due = now if steady else now + self._pause
            self._pause = 0.0 if steady else min(max(1.0, 2 * self._pause), LONGEST_PAUSE_S)
        if now < self._due:
            return False
        self._due, self._started = None, now
        self._part.start()
        return True


def private_log(file: Path) -> BinaryIO:
    """Open a log for appending; only this user may read it."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "ab")


def stop_process_group(process: subprocess.Popen[bytes], grace_s: float = 10.0) -> None:
    """Terminate a process and its children; kill those left after `grace_s` seconds."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(grace_s)
        except (subprocess.TimeoutExpired, ProcessLookupError):
            pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
