"""Confine a process with Landlock: the files it may open, the processes it may reach, and TCP.

The kernel enforces it for root too, and for all child processes. It prevents access to the memory
and environment of outside processes and, depending on the kernel's version, signals to them and
connections to their abstract sockets. It prevents neither connections to sockets with a path nor
changes of a file's mode or times; `system_calls.py` denies these to processes that do not need
them. Loads only the standard library.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable, Mapping

from registry.sandbox.isolation import LINUX, forgo_privileges

# Older kernels cannot prevent a process from truncating a file that it may not write.
LEAST_ABI = 3
MISSING = (
    "This kernel has no Landlock of version 3 or newer (Linux 6.2), so processes that read models "
    "and uploaded files can open all files of their user."
)
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_EXECUTE, _WRITE, _READ, _LIST, _TRUNCATE, _IOCTL = (1 << bit for bit in (0, 1, 2, 3, 14, 15))
_MAKE_DEVICES = 1 << 6 | 1 << 11
_OF_FILES = _EXECUTE | _WRITE | _READ | _TRUNCATE | _IOCTL
_TCP = 1 << 0 | 1 << 1  # bind, connect
_SCOPES = 1 << 0 | 1 << 1  # abstract sockets, signals

_PROGRAMS = ("/bin", "/lib", "/lib32", "/lib64", "/sbin", "/usr")
_SYSTEM = (
    "/etc/OpenCL", "/etc/alternatives", "/etc/group", "/etc/host.conf", "/etc/hosts",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/mime.types",
    "/etc/nsswitch.conf", "/etc/passwd", "/etc/vulkan", "/proc", "/sys",
)  # fmt: skip
# The part of these that a reader needs: libraries query the number of processors and the memory.
_OF_READERS = (
    "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types", "/proc/self", "/proc/cpuinfo",
    "/proc/meminfo", "/proc/sys/vm/overcommit_memory", "/sys/devices/system/cpu",
)  # fmt: skip
_DEVICES = ("/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero")
_GPUS = ("nvidia", "dri", "kfd")
_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """Return the version of Landlock in this kernel; 0 if it is missing or switched off."""
    if not LINUX:
        return 0
    version: int = _libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    return max(0, version)


def ruleset(paths: Mapping[str, Iterable[str]], *, tcp: bool = True, reader: bool = False) -> int:
    """Return the file descriptor of a ruleset. A path that does not exist is left out.

    Args:
        paths: Folders and files by their use: "run" may be read and executed, "read" may be read,
            in "own" files may be created, changed and removed, and in "list" only names may be
            read. Programs and libraries of the system, /proc, /sys and GPU devices are added.
        tcp: Allow TCP. Kernels before version 4 of Landlock (Linux 6.7) cannot deny it.
        reader: Deny programs, devices and other processes in /proc.

    Raises:
        OSError: the kernel does not create the ruleset.
    """
    rules, handled = _empty_ruleset(tcp=tcp)
    own = handled & ~(_EXECUTE | _MAKE_DEVICES | _IOCTL)
    execute = 0 if reader else _EXECUTE
    devices = () if reader else _gpus()
    for group, allowed in (
        ((*_PROGRAMS, *paths.get("run", ())), execute | _READ | _LIST),
        ((*(_OF_READERS if reader else _SYSTEM), *paths.get("read", ())), _READ | _LIST),
        (paths.get("own", ()), own),
        (paths.get("list", ()), _LIST),
        ((*_DEVICES, *devices), handled & (_READ | _WRITE | _LIST | _IOCTL)),
    ):
        for path in group:
            _allow(rules, path, allowed)
    return rules


def nothing() -> int:
    """Return the file descriptor of a ruleset that denies opening any file. Raises OSError."""
    return _empty_ruleset(tcp=False)[0]


def confine(rules: int) -> None:
    """Apply a ruleset to this thread and all that it starts. Raises OSError."""
    forgo_privileges()
    _checked(_libc.syscall(_RESTRICT, rules, 0))
    os.close(rules)


def _empty_ruleset(*, tcp: bool) -> tuple[int, int]:
    """Return the file descriptor of an empty ruleset, and the accesses to files that it denies."""
    version = abi()
    handled = (1 << (16 if version >= 5 else 15)) - 1
    ports = _TCP if version >= 4 and not tcp else 0
    scopes = _SCOPES if version >= 6 else 0
    rules = _checked(_libc.syscall(_CREATE, struct.pack("QQQ", handled, ports, scopes), 24, 0))
    return rules, handled


def _allow(rules: int, path: str, allowed: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not os.path.isdir(f"/proc/self/fd/{place}"):
            allowed &= _OF_FILES
        _checked(_libc.syscall(_ADD, rules, 1, struct.pack("=Qi", allowed, place), 0))
    finally:
        os.close(place)


def _gpus() -> list[str]:
    return [entry.path for entry in os.scandir("/dev") if entry.name.startswith(_GPUS)]


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}")
    return result
