"""Reach of a process: each way is tried from inside it. Loads the standard library alone, so
that a confined program can be this file's text.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

_SEIZE, _DETACH = 0x4206, 17
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _connect(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as each:
        each.connect(address.replace("@", "\0"))


def _send(port: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as each:
        each.sendto(b"x", ("127.0.0.1", int(port)))


def _trace(pid: str) -> None:
    _checked(_libc.ptrace(_SEIZE, int(pid), None, None))
    _libc.ptrace(_DETACH, int(pid), None, None)


def _limit(pid: str) -> None:
    now = resource.prlimit(int(pid), resource.RLIMIT_NOFILE)
    resource.prlimit(int(pid), resource.RLIMIT_NOFILE, now)


def _renice(pid: str) -> None:
    os.setpriority(os.PRIO_PROCESS, int(pid), os.getpriority(os.PRIO_PROCESS, int(pid)))


def _watch(folder: str) -> None:
    file = _checked(_libc.inotify_init1(0))
    try:
        _checked(_libc.inotify_add_watch(file, os.fsencode(folder), 0x100))
    finally:
        os.close(file)


def _run(program: str) -> None:
    child = os.fork()
    if not child:
        with contextlib.suppress(OSError):
            os.execv(program, [program])  # noqa: S606
        os._exit(99)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 99:
        raise PermissionError(13, "Permission denied")


def _fork(_: str) -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)


def _list(path: str) -> None:
    os.listdir(path)


def _open_files(_: str) -> str:
    found = 0
    for number in range(3, 64):
        with contextlib.suppress(OSError):
            os.fstat(number)
            found += 1
    return str(found)


def _read(path: str) -> None:
    with open(path, "rb") as file:
        file.read(1)


WAYS: dict[str, Callable[[str], Any]] = {
    "read": _read,
    "write": lambda path: open(path, "ab").close(),
    "truncate": lambda path: os.truncate(path, 0),
    "list": _list,
    "remove": os.remove,
    "mode": lambda path: os.chmod(path, 0o600),
    "times": lambda path: os.utime(path),
    "link": lambda path: os.symlink("/etc/passwd", path),
    "watch": _watch,
    "connect": _connect,
    "tcp": lambda port: socket.create_connection(("127.0.0.1", int(port)), 5).close(),
    "udp": _send,
    "signal": lambda pid: os.kill(int(pid), 0),
    "trace": _trace,
    "limit": _limit,
    "renice": _renice,
    "run": _run,
    "fork": _fork,
    "names": lambda _: json.dumps(sorted(os.environ)),
    "files": _open_files,
}


def attempts(tried: Sequence[Sequence[str]]) -> list[str]:
    """Return of each way and target what it gave back, "done", or the system's error."""
    found = []
    for way, target in tried:
        try:
            given = WAYS[way](target)
            found.append(given if isinstance(given, str) else "done")
        except OSError as error:
            found.append(error.strerror or str(error))
    return found


if __name__ == "__main__":
    sys.stdout.write("PROBE" + json.dumps(attempts(json.loads(sys.argv[1]))) + "\n")
