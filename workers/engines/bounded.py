"""Processes that run what came with a model, with bounds on time, memory, input and output.

`prompt_process.py` is what runs in them. It gets no environment of ours, so no address and no
password of a store, and no open file but one socket.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.engines import prompt_process

SCRIPT = Path(prompt_process.__file__)
MEBIBYTE = prompt_process.MEBIBYTE
# Libraries are imported and a tokenizer is read; both take longer on a busy machine.
START_S = 120.0
FORK_S = 10.0
MAX_REPLY_BYTES = 64 * MEBIBYTE
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "LANG": "C.UTF-8",
    "OPENBLAS_NUM_THREADS": "1",
    "PATH": os.defpath,
    "RUST_BACKTRACE": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
# A Python that was not installed by the system may need the one, a template's clock the other.
PASSED_ON = ("LD_LIBRARY_PATH", "TZ")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one request. `memory` is what a request may take beyond the loaded tokenizer."""

    seconds: float = 5.0
    memory: int = 256 * MEBIBYTE
    max_input: int = 8 * MEBIBYTE
    max_output: int = 2 * MEBIBYTE


class Declined(Exception):
    """The process refused the request and goes on; the message says why."""


class Ended(Exception):
    """The process is gone: a limit was exceeded, it broke, or it was killed."""


class ProcessSource:
    """A process that has loaded a model's tokenizer and template, and forks others that answer.

    Args:
        setup: As `prompt_process.Prompts` takes it, without the limits.
        limits: Bounds on each request.

    Raises:
        Ended: The setup could not be loaded.
    """

    def __init__(self, setup: dict[str, Any], limits: Limits) -> None:
        self._limits = limits
        bounds = {
            "cpu_s": limits.seconds,
            "memory": limits.memory,
            "max_output": limits.max_output,
        }
        self._setup = json.dumps({**setup, **bounds}).encode()
        self._lock = threading.Lock()
        self._channel, self._process = self._started()

    def process(self) -> BoundedProcess:
        """Return a new process; the source itself is started again where it has ended.

        Raises:
            Ended: It could not be started.
        """
        with self._lock:
            try:
                return self._forked()
            except (OSError, Ended):
                self._end()
                self._channel, self._process = self._started()
                return self._forked()

    def close(self) -> None:
        """End the source; the processes that it made go on."""
        with self._lock:
            self._end()

    def _started(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        ours, theirs = socket.socketpair()
        passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-I", str(SCRIPT)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**ENVIRONMENT, **passed},
                cwd="/",
            )
        try:
            _result(_exchange(ours, self._setup, START_S))
        except BaseException as error:
            process.kill()
            process.wait()
            ours.close()
            raise Ended(str(error)) from error
        return ours, process

    def _forked(self) -> BoundedProcess:
        self._channel.settimeout(FORK_S)
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._channel, [b"f"], [theirs.fileno()])
                data, handles, _, _ = socket.recv_fds(self._channel, 4, 1)
            except OSError:
                ours.close()
                raise
        if len(data) != 4 or len(handles) != 1:
            ours.close()
            raise Ended("the source of processes has ended")
        return BoundedProcess(ours, struct.unpack("!I", data)[0], handles[0], self._limits)

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._channel.close()


class BoundedProcess:
    """One process. One thread at a time may `ask`; any thread may `kill`.

    Args:
        channel: Its socket.
        pid: Its number.
        handle: A file descriptor of the process, which no other process can come to have.
        limits: Bounds on each request.
    """

    def __init__(self, channel: socket.socket, pid: int, handle: int, limits: Limits) -> None:
        self.pid = pid
        self._channel = channel
        self._handle = handle
        self._limits = limits
        self._lock = threading.Lock()
        self._closed = False

    def ask(self, request: dict[str, Any]) -> bytes:
        """Return the result of one request.

        Raises:
            Declined: The request was refused; the process goes on.
            Ended: The process is gone, and with it the request.
        """
        body = json.dumps(request).encode()
        if len(body) > self._limits.max_input:
            raise Declined(
                f"The request has {len(body)} bytes; at most {self._limits.max_input} are accepted."
            )
        try:
            return _result(_exchange(self._channel, body, self._limits.seconds))
        except (OSError, Ended) as error:
            self.kill()
            raise Ended(str(error)) from error

    def kill(self) -> None:
        """End the process, whatever it does; a request that runs raises `Ended`."""
        with self._lock:
            if self._closed:
                return
            try:
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            except ProcessLookupError:
                return
            select.select([self._handle], [], [], FORK_S)  # readable once it has ended

    def close(self) -> None:
        """End the process and let go of its socket."""
        self.kill()
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._handle)
                self._channel.close()


def _exchange(channel: socket.socket, body: bytes, seconds: float) -> bytes:
    """The reply to one message. Raises Ended or OSError."""
    until = time.monotonic() + seconds
    try:
        channel.settimeout(seconds)
        channel.sendall(struct.pack("!I", len(body)) + body)
        (length,) = struct.unpack("!I", _read(channel, 4, until))
        if not 1 <= length <= MAX_REPLY_BYTES:
            raise Ended(f"it answered with {length} bytes")
        return _read(channel, length, until)
    except TimeoutError:
        raise Ended(f"it took longer than {seconds:g} seconds") from None


def _read(channel: socket.socket, size: int, until: float) -> bytes:
    data = bytearray(size)
    view, filled = memoryview(data), 0
    while filled < size:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        channel.settimeout(left)
        got = channel.recv_into(view[filled:])
        if not got:
            raise Ended("it ended: out of memory or CPU time, or killed")
        filled += got
    return bytes(data)


def _result(reply: bytes) -> bytes:
    """The result in a reply. Raises Declined or Ended."""
    status, result = reply[:1], reply[1:]
    if status == prompt_process.KEPT:
        return result
    reason = result[:500].decode("utf-8", "replace")
    raise Declined(reason) if status == prompt_process.REFUSED else Ended(reason)
