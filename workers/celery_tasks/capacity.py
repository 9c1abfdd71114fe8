"""Memory and devices that this process can use for models."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from workers.launchers.memory import own_group
from workers.placement.capacity import Capacity
from workers.run.environment import run_environment

# Memory limit of a container's control group, in version 1 of control groups.
_FIRST_VERSION_LIMIT = Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")
# Device files of NVIDIA and AMD. If there are none, torch need not be loaded to look for a GPU.
_GPU_FILES = ("nvidia[0-9]*", "kfd")

_ASK_TORCH = """
from torch import cuda
count = cuda.device_count() if cuda.is_available() else 0
print(cuda.get_device_properties(0).total_memory if count else 0, count)
"""
_ASK_TORCH_S = 300.0


def own_capacity(*, share: float, labels: Sequence[str], gpus: bool = True) -> Capacity:
    """Return the capacity of this process: `share` of its GPU's memory, or of the machine's.

    Engines compute on one device, so the memory of additional GPUs does not count. Without `gpus`,
    as in a process without torch, it has none.
    """
    names = tuple(sorted(set(labels)))
    if gpus and any(any(Path("/dev").glob(pattern)) for pattern in _GPU_FILES):
        memory, count = _gpus()
        if count:
            return Capacity(int(share * memory), "cuda", count, names)
    return Capacity(int(share * machine_memory()), "cpu", os.cpu_count() or 1, names)


@cache
def _gpus() -> tuple[int, int]:
    """Return the memory of the first GPU that torch can use, in bytes, and the number of GPUs.

    A separate process loads torch, which would otherwise stay in this one with a GPU context.

    Raises:
        OSError, SubprocessError: that process failed.
    """
    process = subprocess.run(
        [sys.executable, "-c", _ASK_TORCH],
        env=run_environment(os.environ),
        stdout=subprocess.PIPE,
        check=True,
        timeout=_ASK_TORCH_S,
    )
    memory, count = process.stdout.split()
    return int(memory), int(count)


def machine_memory() -> int:
    """Return the bytes of memory that this process may use: the machine's memory, or the limit of
    its container or systemd unit."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [_FIRST_VERSION_LIMIT]
    with contextlib.suppress(OSError):
        own = own_group()
        limits += [group / "memory.max" for group in (own, *own.parents)]
    for file in limits:
        with contextlib.suppress(OSError):
            if (limit := file.read_text(encoding="ascii").strip()).isdigit():
                memory = min(memory, int(limit))
    return memory
