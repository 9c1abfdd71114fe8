"""Isolate this process: its network, its privileges, and its visibility to others.

Loads only the standard library, because it runs first in processes that must start fast.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys

_NEW_USER, _NEW_NET, _NEW_MOUNTS = 0x10000000, 0x40000000, 0x00020000
_ALL_PRIVATE, _NO_PROGRAMS = 0x44000, 0b1110  # no set-user-ID, devices or programs
_SET_PARENT_DEATH_SIGNAL, _SET_DUMPABLE, _NO_NEW_PRIVILEGES = 1, 4, 38
_DROP_FROM_BOUNDS, _SET_SECURE_BITS, _AMBIENT, _CLEAR_ALL = 24, 28, 47, 4
_ROOT_GAINS_NOTHING = 0b1111  # NOROOT and NO_SETUID_FIXUP, both locked
_CAPABILITIES_VERSION = 0x20080522
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1
_OUT_OF_MEMORY_SCORE = "500"
LINUX = sys.platform == "linux"
# Set by the parent for processes that already have their own network.
ALONE = "ASSAY_ISOLATED"
_libc = ctypes.CDLL(None, use_errno=True)


def hide_process() -> None:
    """Hide /proc/PID of this process, such as its environment, from other processes of its user.

    Root and the process itself can still read it, and it leaves no core dump. Its forks are hidden
    too; programs that it starts are not.
    """
    if LINUX:
        _libc.prctl(_SET_DUMPABLE, 0, 0, 0, 0)


def die_first() -> None:
    """Make the kernel end this process, rather than its parent, when memory runs out."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(_OUT_OF_MEMORY_SCORE)


def end_with_parent() -> None:
    """Make the kernel kill this process when the thread that started it ends.

    A change of privileges resets this.
    """
    if not LINUX:
        return
    parent = os.getppid()
    _libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def isolate() -> bool:
    """Give this process its own network and `/dev/shm`, and return whether that succeeded.

    A new network namespace has only a loopback interface; Unix sockets with a path still work. Some
    containers, and Landlock, allow no new namespace or no mount in it; the process then keeps what
    it has.
    """
    if os.environ.get(ALONE):
        return True
    user, group = os.getuid(), os.getgid()
    if _libc.unshare(_NEW_NET | _NEW_MOUNTS) != 0:
        if _libc.unshare(_NEW_USER | _NEW_NET | _NEW_MOUNTS) != 0:
            return False
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
    _loopback_up()
    # Otherwise the next mount would affect the whole machine.
    if _libc.mount(None, b"/", None, ctypes.c_ulong(_ALL_PRIVATE), None) != 0:
        return False
    own = _libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", ctypes.c_ulong(_NO_PROGRAMS), b"mode=1777")
    # A system without `/dev/shm` does not need the mount.
    return own == 0 or not os.path.isdir("/dev/shm")  # noqa: S108


def _write(path: str, text: str) -> None:
    # Errors do not matter: without a map, this user's files stay readable by their real owner.
    with contextlib.suppress(OSError), open(path, "w") as file:
        file.write(text)


def _loopback_up() -> None:
    """Switch on `lo`, over which servers with several processes communicate."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as each:
        request = struct.pack("16sH14x", b"lo", 0)
        # Only servers with several processes need it; without it, they do not start.
        with contextlib.suppress(OSError):
            (flags,) = struct.unpack_from("H", fcntl.ioctl(each, _GET_FLAGS, request), 16)
            fcntl.ioctl(each, _SET_FLAGS, struct.pack("16sH14x", b"lo", flags | _UP))


def forgo_privileges() -> None:
    """Prevent this process and its children from gaining privileges by executing a program."""
    _libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def drop_capabilities() -> None:
    """Drop all capabilities of root, real or in a user namespace, also after `exec`.

    Since Linux 6.15, CAP_PERFMON reads the environment of any process, which Landlock would deny.
    """
    for capability in range(64):
        _libc.prctl(_DROP_FROM_BOUNDS, capability, 0, 0, 0)
    _libc.prctl(_SET_SECURE_BITS, _ROOT_GAINS_NOTHING, 0, 0, 0)
    _libc.prctl(_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    header = struct.pack("Ii", _CAPABILITIES_VERSION, 0)
    if _libc.capset(header, bytes(24)) != 0:
        raise OSError(ctypes.get_errno(), "Capabilities cannot be dropped.")
