"""Filter of system calls that reach other processes, which readers of files do not need.

Landlock does not protect sockets with a path, modes and times of files, limits and priorities of
other processes of the same user, and names in watched folders. A kernel filter (seccomp) protects
these, also on kernels with an old Landlock. Loads only the standard library.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

from registry.sandbox.isolation import LINUX, forgo_privileges

# Numbers on x86-64 and on 64-bit ARM, from the kernel's tables; None for a missing call.
# Calls after 423 have the same number on both.
_DENIED: dict[str, tuple[int | None, int | None]] = {
    # connections
    "socket": (41, 198), "connect": (42, 203), "accept": (43, 202), "accept4": (288, 242),
    "bind": (49, 200), "listen": (50, 201), "io_uring_setup": (425, 425),
    # programs
    "execve": (59, 221), "execveat": (322, 281),
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "kcmp": (312, 272), "move_pages": (279, 239),
    "migrate_pages": (256, 238), "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438),
    "sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "sched_setattr": (314, 274),
    "setpriority": (141, 140), "ioprio_set": (251, 30),
    "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # modes, owners, times and attributes of files
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "lchown": (94, None), "fchown": (93, 55), "fchownat": (260, 54),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "removexattrat": (466, 466), "file_setattr": (469, 469),
    # files that lead elsewhere, or never end
    "mknod": (133, None), "mknodat": (259, 33), "link": (86, None), "linkat": (265, 37),
    "symlink": (88, None), "symlinkat": (266, 36),
    # names in folders
    "inotify_init": (253, None), "inotify_init1": (294, 26), "fanotify_init": (300, 262),
    # more of the kernel
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282),
}  # fmt: skip
# Allowed only on the process itself: this argument must be 0.
_OF_OTHERS: dict[str, tuple[tuple[int, int], int]] = {
    "prlimit64": ((302, 261), 0),
    "sched_setaffinity": ((203, 122), 0),
}
# Threads are allowed: without `clone3`, glibc uses `clone`, whose flags a filter can read.
_NEW_PROCESSES: dict[str, tuple[int | None, int | None]] = {
    "fork": (57, None),
    "vfork": (58, None),
}
_CLONE, _CLONE_BY_STRUCTURE, _THREAD = (56, 220), 435, 0x10000
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
# First call number of the 32-bit interface (x32) of x86-64.
_OTHER_INTERFACE = 0x40000000
_GET_SECCOMP, _SET_SECCOMP, _FILTER = 21, 22, 2
_LOAD, _EQUAL, _AT_LEAST, _HAS_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_ALLOW, _DENY, _IS_MISSING = 0x7FFF0000, 0x00050001, 0x00050026  # EPERM, ENOSYS
_Instruction = tuple[int, int, int, int]
_libc = ctypes.CDLL(None, use_errno=True)


def filters() -> bool:
    """Return whether this module has a filter for this machine, and its kernel supports filters."""
    if not LINUX or platform.machine() not in _ARCHITECTURES:
        return False
    state: int = _libc.prctl(_GET_SECCOMP, 0, 0, 0, 0)
    return state >= 0


def deny_other_processes() -> None:
    """Deny this thread, and all that it starts, calls that reach beyond itself and its files.

    Raises:
        OSError: the kernel does not accept the filter.
    """
    if not filters():
        return
    machine, _ = _ARCHITECTURES[platform.machine()]
    _apply([*_denied(machine, _DENIED), *_self_only(machine, _OF_OTHERS)])


def deny_limits_of_others() -> None:
    """Deny this thread, and all that it starts, to set the limits of another process of its user,
    because a limit on CPU time kills.

    Raises:
        OSError: the kernel does not accept the filter.
    """
    if not filters():
        return
    machine, _ = _ARCHITECTURES[platform.machine()]
    _apply(_self_only(machine, {name: _OF_OTHERS[name] for name in ("prlimit64",)}))


def deny_new_processes() -> None:
    """Deny this thread, and all that it starts, to start processes, which could outlive it.

    Raises:
        OSError: the kernel does not accept the filter.
    """
    if not filters():
        return
    machine, _ = _ARCHITECTURES[platform.machine()]
    _apply(
        [
            *_denied(machine, _NEW_PROCESSES),
            (_EQUAL, 0, 1, _CLONE_BY_STRUCTURE),
            (_RETURN, 0, 0, _IS_MISSING),
            (_EQUAL, 0, 4, _CLONE[machine]),
            (_LOAD, 0, 0, _ARGUMENTS),
            (_HAS_BITS, 1, 0, _THREAD),
            (_RETURN, 0, 0, _DENY),
            (_RETURN, 0, 0, _ALLOW),
        ]
    )


def _self_only(machine: int, calls: dict[str, tuple[tuple[int, int], int]]) -> list[_Instruction]:
    return [
        each
        for numbers, argument in calls.values()
        for each in (
            (_EQUAL, 0, 4, numbers[machine]),
            (_LOAD, 0, 0, _ARGUMENTS + 8 * argument),
            (_EQUAL, 1, 0, 0),
            (_RETURN, 0, 0, _DENY),
            (_RETURN, 0, 0, _ALLOW),
        )
    ]


def _denied(machine: int, calls: dict[str, tuple[int | None, int | None]]) -> list[_Instruction]:
    call_numbers = (numbers[machine] for numbers in calls.values())
    return [
        each
        for number in call_numbers
        if number is not None
        for each in ((_EQUAL, 0, 1, number), (_RETURN, 0, 0, _DENY))
    ]


def _apply(rules: list[_Instruction]) -> None:
    """Make the kernel run `rules` on the number of each call. Raises OSError."""
    _, architecture = _ARCHITECTURES[platform.machine()]
    code: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _DENY),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _OTHER_INTERFACE),
        (_RETURN, 0, 0, _DENY),
        *rules,
        (_RETURN, 0, 0, _ALLOW),
    ]
    program = b"".join(struct.pack("HBBI", *each) for each in code)
    instructions = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("HxxxxxxP", len(code), ctypes.addressof(instructions))
    forgo_privileges()
    if _libc.prctl(_SET_SECCOMP, _FILTER, head, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")
