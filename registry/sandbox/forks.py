"""Confined side of a fork source (`source.py`): it prepares once, then forks a process within
milliseconds for each socket that it receives.

A message is four bytes of length and a body. A request's body is JSON; files may come with it. A
reply's body starts with one byte: `k` and the result, `r` and the reason why the request was
declined, or `b` and the reason why this process is broken. Loads only the standard library.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

KEPT, REFUSED, BROKEN = b"k", b"r", b"b"
MEBIBYTE = 1024 * 1024
MAX_FILES = 1


class CannotAnswer(Exception):
    """The request cannot be answered; the process continues."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds on a source while it prepares: bytes of memory and seconds of CPU time; and the
    maximum size in bytes of a file that it or a fork writes.
    """

    memory: int
    cpu_s: float
    file: int = 0


# Returns the answer to a request; the second argument has the descriptors of its files.
Answer = Callable[[dict[str, Any], list[int]], bytes]
# Takes a setup; returns the answering function, and a function that each fork calls first.
Prepare = Callable[[dict[str, Any]], tuple[Answer, Callable[[], None]]]


def limit(kind: int, value: int) -> None:
    """Set the soft limit, but at most to the hard one."""
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def address_space() -> int:
    """Return the current address space of this process in bytes."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def allow_cpu(seconds: float) -> None:
    """Let the kernel kill this process after this many more seconds of CPU time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + seconds) + 1)


def run_source(prepare: Prepare, bounds: Bounds) -> None:
    """Prepare with the first message on standard input, then fork for each received socket."""
    control = socket.socket(fileno=0)
    limit(resource.RLIMIT_AS, bounds.memory)
    limit(resource.RLIMIT_FSIZE, bounds.file)
    limit(resource.RLIMIT_CORE, 0)
    allow_cpu(bounds.cpu_s)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children leave no zombies
    body = _receive(control)[0]
    if body is None:
        return
    try:
        answer, begin = prepare(json.loads(body))
    except BaseException as error:
        _send(control, BROKEN + f"{type(error).__name__}: {error}"[:500].encode())
        return
    gc.collect()
    gc.freeze()  # children then share these pages permanently
    _send(control, KEPT)
    while True:
        data, sockets, _, _ = socket.recv_fds(control, 1, 1)
        if not data:
            return
        child = os.fork()
        if not child:
            control.close()
            begin()
            _serve(socket.socket(fileno=sockets[0]), answer)
            os._exit(0)
        os.close(sockets[0])
        handle = os.pidfd_open(child)
        socket.send_fds(control, [struct.pack("!I", child)], [handle])
        os.close(handle)


def _serve(channel: socket.socket, answer: Answer) -> None:
    """Answer requests until the other side closes the socket."""
    limit(resource.RLIMIT_NOFILE, 16)
    while True:
        body, files = _receive(channel)
        if body is None:
            return
        try:
            reply = KEPT + answer(json.loads(body), files)
        except CannotAnswer as error:
            reply = REFUSED + str(error).encode("utf-8", "replace")
        except BaseException as error:
            # A panic in a Rust library is not an Exception, and leaves it in an unknown state.
            _send(channel, BROKEN + f"{type(error).__name__}: {error}"[:500].encode())
            return
        _send(channel, reply)
        for file in files:
            os.close(file)


def _receive(channel: socket.socket) -> tuple[bytes | None, list[int]]:
    """Return the next message and its files; None if the other side has closed the socket."""
    head, files, _, _ = socket.recv_fds(channel, 4, MAX_FILES)
    if not head:
        return None, []
    while len(head) < 4:
        if not (more := channel.recv(4 - len(head))):
            return None, []
        head += more
    data = bytearray(struct.unpack("!I", head)[0])
    view, filled = memoryview(data), 0
    while filled < len(data):
        if not (count := channel.recv_into(view[filled:])):
            return None, []
        filled += count
    return bytes(data), files


def _send(channel: socket.socket, body: bytes) -> None:
    channel.sendall(struct.pack("!I", len(body)) + body)
