"""Processes forked from a confined process that has loaded libraries once. Each answers requests
within bounds on time, memory, input and output, and can be killed at any time.

They run `forks.py`. They do not inherit the environment with addresses and passwords of stores, and
have no open files except one socket and the files that are sent.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from registry.sandbox import forks

MEBIBYTE = forks.MEBIBYTE
# Time to import libraries and read a setup, with a margin for a busy machine.
START_S = 120.0
FORK_S = 10.0
MAX_REPLY_BYTES = 64 * MEBIBYTE


class RequestDeclined(Exception):
    """The process declined the request and continues; the message gives the reason."""


class ProcessEnded(Exception):
    """The process has ended: it exceeded a limit, broke, or was killed."""


class TimedOut(ProcessEnded):
    """The process was killed because it did not answer in time."""


class ProcessSource:
    """A prepared process that forks answering processes.

    Args:
        command: Its command, for example from `readers.reader_command`.
        setup: The JSON with which it prepares.
        environment: Its environment.
        seconds: Time limit of a request.
        max_input: Maximum bytes of a request.

    Raises:
        ProcessEnded: It could not prepare.
    """

    def __init__(
        self,
        command: Sequence[str],
        setup: Mapping[str, Any],
        *,
        environment: Mapping[str, str],
        seconds: float,
        max_input: int,
    ) -> None:
        self._command = command
        self._environment = environment
        self._seconds, self._max_input = seconds, max_input
        self._setup = json.dumps(setup).encode()
        self._lock = threading.Lock()
        self._closed = False
        self._channel, self._process = self._start()

    @property
    def pid(self) -> int:
        """Process ID of the source."""
        return self._process.pid

    def process(self) -> BoundedProcess:
        """Return a new process; starts the source again if it has ended.

        Raises:
            ProcessEnded: It could not be started, or was closed.
        """
        with self._lock:
            if self._closed:
                raise ProcessEnded("it was closed")
            try:
                return self._fork()
            except (OSError, ProcessEnded):
                self._end()
                self._channel, self._process = self._start()
                return self._fork()

    def close(self) -> None:
        """End the source; its forked processes continue."""
        with self._lock:
            self._closed = True
            self._end()

    def _start(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                self._command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=dict(self._environment),
                cwd="/",
                # Only the user of this class handles signals from a terminal or service manager.
                start_new_session=True,
            )
        try:
            _result(_exchange(ours, self._setup, START_S))
        except BaseException as error:
            process.kill()
            process.wait()
            ours.close()
            raise ProcessEnded(str(error)) from error
        return ours, process

    def _fork(self) -> BoundedProcess:
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
            raise ProcessEnded("the source of processes has ended")
        pid = struct.unpack("!I", data)[0]
        return BoundedProcess(ours, pid, handles[0], self._seconds, self._max_input)

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._channel.close()


class BoundedProcess:
    """One process. One thread at a time may `ask`; any thread may `kill`.

    Args:
        channel: Its socket.
        pid: Its process ID.
        handle: A pidfd of the process, which, unlike the ID, never refers to another process.
        seconds: Time limit of a request.
        max_input: Maximum bytes of a request.
    """

    def __init__(
        self, channel: socket.socket, pid: int, handle: int, seconds: float, max_input: int
    ) -> None:
        self.pid = pid
        self._channel = channel
        self._handle = handle
        self._seconds, self._max_input = seconds, max_input
        self._lock = threading.Lock()
        self._closed = False

    def ask(self, request: Mapping[str, Any], file: int | None = None) -> bytes:
        """Return the result of one request, which may come with a `file`.

        Raises:
            RequestDeclined: The process declined the request and continues.
            ProcessEnded: The process ended without an answer.
        """
        body = json.dumps(request).encode()
        if len(body) > self._max_input:
            raise RequestDeclined(
                f"The request has {len(body)} bytes; at most {self._max_input} are accepted."
            )
        try:
            return _result(_exchange(self._channel, body, self._seconds, file))
        except ProcessEnded:
            self.kill()
            raise
        except OSError as error:
            self.kill()
            raise ProcessEnded(str(error)) from error

    def kill(self) -> None:
        """End the process immediately; a running request raises `ProcessEnded`."""
        with self._lock:
            if self._closed:
                return
            try:
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            except ProcessLookupError:
                return
            select.select([self._handle], [], [], FORK_S)  # readable once it has ended

    def close(self) -> None:
        """End the process and close its socket."""
        self.kill()
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._handle)
                self._channel.close()


def _exchange(
    channel: socket.socket, body: bytes, seconds: float, file: int | None = None
) -> bytes:
    """Return the reply to one message. Raises ProcessEnded or OSError."""
    until = time.monotonic() + seconds
    head = struct.pack("!I", len(body))
    try:
        channel.settimeout(seconds)
        if file is None:
            channel.sendall(head + body)
        else:
            socket.send_fds(channel, [head], [file])
            channel.sendall(body)
        (length,) = struct.unpack("!I", _read(channel, 4, until))
        if not 1 <= length <= MAX_REPLY_BYTES:
            raise ProcessEnded(f"it answered with {length} bytes")
        return _read(channel, length, until)
    except TimeoutError:
        raise TimedOut(f"it took longer than {seconds:g} seconds") from None


def _read(channel: socket.socket, size: int, until: float) -> bytes:
    data = bytearray(size)
    view, filled = memoryview(data), 0
    while filled < size:
        remaining = until - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        channel.settimeout(remaining)
        count = channel.recv_into(view[filled:])
        if not count:
            raise ProcessEnded("it ended: out of memory or CPU time, or killed")
        filled += count
    return bytes(data)


def _result(reply: bytes) -> bytes:
    """Return the result in a reply. Raises RequestDeclined or ProcessEnded."""
    status, result = reply[:1], reply[1:]
    if status == forks.KEPT:
        return result
    reason = result[:500].decode("utf-8", "replace")
    raise RequestDeclined(reason) if status == forks.REFUSED else ProcessEnded(reason)
