"""Take from this process its network, its privileges, and what others can see of it.

Loads the standard library alone: it runs first in processes that must start fast.
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
# A variable of processes that have a network of their own, from what they were started by.
ALONE = "ASSAY_ISOLATED"
_libc = ctypes.CDLL(None, use_errno=True)


def hide_process() -> None:
    """Close /proc/PID of this process, such as its environment, to others of its user.

    Root and the process itself still read it, and it leaves no core dump. Its forks are hidden too;
    programs that it starts are not.
    """
    if LINUX:
        _libc.prctl(_SET_DUMPABLE, 0, 0, 0, 0)


def die_first() -> None:
    """Have the kernel end this process, not the one that started it, when memory runs out."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(_OUT_OF_MEMORY_SCORE)


def end_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends.

    The kernel forgets this when the process gets other privileges.
    """
    if not LINUX:
        return
    parent = os.getppid()
    _libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def isolate() -> bool:
    """Give this process a network and a `/dev/shm` of its own. Returns whether it has them.

    A new network namespace holds nothing but a loopback interface; sockets that are files still
    work. Some containers allow no new namespace, or no mount in it; nor does Landlock, under which
    a process keeps what it has.
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
    # Else the next mount would be the machine's.
    if _libc.mount(None, b"/", None, ctypes.c_ulong(_ALL_PRIVATE), None) != 0:
        return False
    own = _libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", ctypes.c_ulong(_NO_PROGRAMS), b"mode=1777")
    # A system without `/dev/shm` needs none.
    return own == 0 or not os.path.isdir("/dev/shm")  # noqa: S108


def _write(path: str, text: str) -> None:
    # Without a map, files of this user stay readable by their real owner.
    with contextlib.suppress(OSError), open(path, "w") as file:
        file.write(text)


def _loopback_up() -> None:
    """Switch on `lo`, which servers of several processes talk over."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as each:
        request = struct.pack("16sH14x", b"lo", 0)
        # Only servers of several processes need it; theirs will not start.
        with contextlib.suppress(OSError):
            (flags,) = struct.unpack_from("H", fcntl.ioctl(each, _GET_FLAGS, request), 16)
            fcntl.ioctl(each, _SET_FLAGS, struct.pack("16sH14x", b"lo", flags | _UP))


def forgo_privileges() -> None:
    """Keep this process, and all that it starts, from gaining privileges by a program."""
    _libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)


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
