"""A server as a supervised process: start, health, limits and end."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from registry.sandbox import landlock
from registry.sandbox.isolation import ALONE
from workers.engines.architectures import UnsupportedModel
from workers.engines.bounded import PASSED_ON
from workers.engines.servers.channel import Address, ServerFailed, ServerRefused, call

logger = logging.getLogger(__name__)

LAUNCH = ("-I", "-m", "workers.engines.servers.launch")
GIBIBYTE = 1024**3
MAX_SOCKET_PATH = 100  # bytes; the system allows 107
KEY_FILE = "key.yaml"
_POLL_S = 0.05
_WATCH_S = 1.0
_LOG_LINES = 40
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Bounds on one server. `memory` is in bytes, for all of its processes together; `start_s` is
    the time until it must answer, `health_s` the time for an answer to a health check, `silent_s`
    the longest pause in an answer. `unconfined` starts it even if the kernel cannot keep it from
    this user's files.
    """

    memory: int = 16 * GIBIBYTE
    start_s: float = 300.0
    health_s: float = 20.0
    silent_s: float = 300.0
    unconfined: bool = False


class ServerProcess:
    """One server on a Unix socket in a folder that only this user can enter.

    The server inherits neither the worker's environment (with addresses and passwords of stores)
    nor its open files, and has no network if the kernel allows that (`isolated`). Landlock confines
    it to `paths`, the system's programs and its own folder. It requires a key, which other servers
    of this user cannot read. It ends with this process.

    Args:
        command: Makes the command from the path of the socket. The server's key is in the file
            `KEY_FILE` in the same folder, as the JSON object {"api-key": KEY}.
        paths: Paths that it may run, read and change, as in `landlock.ruleset`.
        environment: Variables of its environment, in addition to paths and language.
        limits: Bounds.
        on_end: Called once, from a separate thread, when the server ends by itself or is killed
            for exceeding a limit; `fault` has the reason.
        health: The target that answers while the server is healthy.

    Raises:
        UnsupportedModel: The server ended before it answered: it cannot load the model.
        OSError: The server could not be started, or the kernel cannot confine it.
    """

    def __init__(
        self,
        command: Callable[[Path], Sequence[str]],
        *,
        paths: Mapping[str, Sequence[str]],
        environment: Mapping[str, str] | None = None,
        limits: ServerLimits,
        on_end: Callable[[], None],
        health: str = "/health",
    ) -> None:
        if landlock.abi() < landlock.LEAST_ABI and not limits.unconfined:
            raise OSError("This kernel has no Landlock, which is needed to confine a server.")
        self.limits = limits
        self._on_end = on_end
        self._health = health
        self.fault = ""
        self.pid, self.isolated = 0, False
        self._closing = threading.Event()
        self._lines: deque[str] = deque(maxlen=_LOG_LINES)
        self._home = Path(tempfile.mkdtemp(prefix="assay-server-"))
        # llama.cpp recognizes a socket's path by this suffix.
        self.socket = self._home / "s.sock"
        self.address = Address(self.socket, secrets.token_hex(32))
        self.confinement = _confinement(paths, self._home)
        try:
            if len(os.fsencode(self.socket)) > MAX_SOCKET_PATH:
                raise OSError(f"The path {self.socket} is too long for a socket; set TMPDIR.")
            with open(self._home / KEY_FILE, "w", opener=_private) as file:
                json.dump({"api-key": self.address.key}, file)
            self._process = self._started(command(self.socket), environment or {})
            try:
                self.pid, self.isolated = self._launched()
                self._await_ready()
            except BaseException:
                self._end()
                raise
        except BaseException:
            shutil.rmtree(self._home, ignore_errors=True)
            raise
        if not self.isolated:
            logger.warning("The server %s shares this worker's network", self.pid)
        if self.confinement is None:
            logger.warning("The server %s can open this user's files: no Landlock", self.pid)
        self._watcher = threading.Thread(target=self._watch, name="server-watch", daemon=True)
        self._watcher.start()

    @property
    def log(self) -> str:
        """The last lines of the server's output."""
        return "\n".join(self._lines)

    def close(self) -> None:
        """End the server and remove its folder."""
        self._closing.set()
        self._end()
        if threading.current_thread() is not self._watcher:
            self._watcher.join()
        shutil.rmtree(self._home, ignore_errors=True)

    def _started(
        self, command: Sequence[str], environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        passed = {name: os.environ[name] for name in (*PASSED_ON, ALONE) if name in os.environ}
        base = {"HOME": str(self._home), "LANG": "C.UTF-8", "PATH": os.defpath, **passed}
        return subprocess.Popen(
            [sys.executable, *LAUNCH, json.dumps(self.confinement), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**base, "TMPDIR": str(self._home), **environment},
            cwd=self._home,
            start_new_session=True,
        )

    def _launched(self) -> tuple[int, bool]:
        """Return the server's process group, and whether it has a separate network."""
        output, errors = self._process.stdout, self._process.stderr
        if output is None or errors is None:
            raise OSError("The server was launched without pipes.")
        threading.Thread(
            target=self._read_log, args=(errors,), name="server-log", daemon=True
        ).start()
        line = output.readline()
        output.close()
        try:
            report = json.loads(line)
            return int(report["pid"]), bool(report["isolated"])
        except (ValueError, KeyError, TypeError) as error:
            raise OSError("The server could not be launched.") from error

    def _read_log(self, errors: IO[bytes]) -> None:
        for line in errors:
            self._lines.append(line[:500].decode("utf-8", "replace").rstrip())
        errors.close()

    def _await_ready(self) -> None:
        deadline = time.monotonic() + self.limits.start_s
        while True:
            if self._process.poll() is not None:
                logger.error("A server ended while it started:\n%s", self.log)
                raise UnsupportedModel(f"The server ended while it started. {self._last_line()}")
            try:
                call(self.address, self._health, timeout=self.limits.health_s)
                return
            except (ServerFailed, ServerRefused):
                pass
            if (used := memory_of(self.pid)) > self.limits.memory:
                raise MemoryError(self._too_much(used))
            if time.monotonic() > deadline:
                raise TimeoutError(f"The server did not answer within {self.limits.start_s:g} s.")
            time.sleep(_POLL_S)

    def _watch(self) -> None:
        checked = time.monotonic()
        while not self._closing.wait(_WATCH_S):
            if self._process.poll() is not None:
                self.fail(f"The server ended with status {self._process.returncode}.")
                return
            if (used := memory_of(self.pid)) > self.limits.memory:
                self.fail(self._too_much(used))
                return
            if time.monotonic() - checked >= self.limits.health_s:
                try:
                    call(self.address, self._health, timeout=self.limits.health_s)
                except (ServerFailed, ServerRefused) as error:
                    if self._process.poll() is None and not self._closing.is_set():
                        self.fail(f"The server did not answer to a health check: {error}.")
                        return
                checked = time.monotonic()

    def fail(self, fault: str) -> None:
        """End the server because of a fault; running requests fail, and `on_end` is called."""
        if self.fault or self._closing.is_set():
            return
        self.fault = fault
        logger.error("%s Its last lines:\n%s", fault, self.log)
        self._end()
        self._on_end()

    def _too_much(self, used: int) -> str:
        return (
            f"The server took {used / GIBIBYTE:.1f} GiB of memory; "
            f"{self.limits.memory / GIBIBYTE:g} GiB are allowed."
        )

    def _last_line(self) -> str:
        return next((line[-300:] for line in reversed(self._lines) if line.strip()), "")

    def _end(self) -> None:
        """Kill the server and its child processes through the launcher."""
        if (pipe := self._process.stdin) is not None:
            with contextlib.suppress(OSError):  # The launcher has ended.
                pipe.close()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self.pid:
            # A launcher that was killed has left the server's processes behind.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)


def _confinement(paths: Mapping[str, Sequence[str]], home: Path) -> dict[str, Sequence[str]] | None:
    if landlock.abi() < landlock.LEAST_ABI:
        return None
    return {**paths, "own": [str(home), *paths.get("own", ())]}


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def memory_of(group: int) -> int:
    """Return the resident memory of all processes of a group, in bytes."""
    total = 0
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        try:
            fields = Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split()
            if int(fields[2]) == group:
                total += int(Path(entry.path, "statm").read_bytes().split()[1]) * _PAGE
        except (OSError, IndexError, ValueError):
            continue  # The process has just ended.
    return total
