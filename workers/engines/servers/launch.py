"""Start a server confined to its files, without network and without privileges, and end it with
its parent.

Run as `python -I launch.py PATHS COMMAND…`, where PATHS are those of `landlock.ruleset` as JSON, or
`null` for a server that is not confined. It prints one line of JSON, `{"pid": …, "isolated": …}`,
then waits for the server. The end of its standard input, which its parent holds open, kills the
server. Loads the standard library and `landlock.py` alone.

A new network namespace holds nothing but a loopback interface; sockets that are files still work.
So does a new `/dev/shm`, which servers would share otherwise. Where the kernel allows no new
namespace (some containers), or no mount in it, `isolated` is false: the server has the worker's.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib.util
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
from types import ModuleType

_NEW_USER, _NEW_NET, _NEW_MOUNTS = 0x10000000, 0x40000000, 0x00020000
_ALL_PRIVATE, _NO_PROGRAMS = 0x44000, 0b1110  # no set-user-ID, devices or programs
_PARENT_DEATH_SIGNAL, _NO_NEW_PRIVILEGES = 1, 38
_DROP_FROM_BOUNDS, _SET_SECURE_BITS, _AMBIENT, _CLEAR_ALL = 24, 28, 47, 4
_ROOT_GAINS_NOTHING = 0b1111  # NOROOT and NO_SETUID_FIXUP, both locked
_CAPABILITIES_VERSION = 0x20080522
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1
_libc = ctypes.CDLL(None, use_errno=True)


def isolate() -> bool:
    """Give this process a network and a `/dev/shm` of its own. Returns whether it was possible."""
    user, group = os.getuid(), os.getgid()
    if _libc.unshare(_NEW_NET | _NEW_MOUNTS) != 0:
        if _libc.unshare(_NEW_USER | _NEW_NET | _NEW_MOUNTS) != 0:
            return False
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
    _loopback_up()
    # Else the next mount would be the machine's.
    if _libc.mount(None, b"/", None, ctypes.c_ulong(_ALL_PRIVATE), None) != 0:
        return False
    own = _libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", ctypes.c_ulong(_NO_PROGRAMS), b"mode=1777")
    # A system without `/dev/shm` needs none.
    return own == 0 or not os.path.isdir("/dev/shm")  # noqa: S108


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError:
        pass  # Without a map, files of this user stay readable by their real owner.


def _loopback_up() -> None:
    """Switch on `lo`, which servers of several processes talk over."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as each:
        request = struct.pack("16sH14x", b"lo", 0)
        try:
            (flags,) = struct.unpack_from("H", fcntl.ioctl(each, _GET_FLAGS, request), 16)
            fcntl.ioctl(each, _SET_FLAGS, struct.pack("16sH14x", b"lo", flags | _UP))
        except OSError:
            pass  # Only servers of several processes need it; theirs will not start.


def drop_capabilities() -> None:
    """Leave root, real or of a user namespace, nothing but its user ID, after `exec` as well.

    Since Linux 6.15, CAP_PERFMON reads the environment of any process, which Landlock would deny.
    """
    for capability in range(64):
        _libc.prctl(_DROP_FROM_BOUNDS, capability, 0, 0, 0)
    _libc.prctl(_SET_SECURE_BITS, _ROOT_GAINS_NOTHING, 0, 0, 0)
    _libc.prctl(_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    header = struct.pack("Ii", _CAPABILITIES_VERSION, 0)
    if _libc.capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "Capabilities cannot be dropped.")


def _landlock() -> ModuleType:
    """Load `workers/landlock.py`, whose folder is not on the path of a `python -I`."""
    file = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../landlock.py"))
    spec = importlib.util.spec_from_file_location("landlock", file)
    if spec is None or spec.loader is None:
        raise OSError(f"{file} cannot be loaded.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _in_child(landlock: ModuleType, rules: int | None) -> None:
    for taken in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(taken, signal.SIG_DFL)
    _libc.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    drop_capabilities()
    if rules is not None:
        landlock.confine(rules)


def main(paths: str, command: list[str]) -> int:
    """Run the command until it ends, or standard input does; returns its exit status.

    Raises:
        OSError: the kernel does not confine it.
    """
    _libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    # A signal to all processes of a worker would leave behind what the server has started.
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    isolated = isolate()
    landlock, allowed = _landlock(), json.loads(paths)
    # Its paths are those of the new mounts.
    rules = None if allowed is None else landlock.ruleset(allowed)
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        start_new_session=True,
        preexec_fn=lambda: _in_child(landlock, rules),
    )

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)

    def watch() -> None:
        while os.read(0, 4096):
            pass
        kill()

    os.write(1, json.dumps({"pid": server.pid, "isolated": isolated}).encode() + b"\n")
    os.close(1)
    threading.Thread(target=watch, daemon=True).start()
    status = server.wait()
    kill()  # Processes that it started may have outlived it.
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
