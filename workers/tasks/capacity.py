"""Look up what this process has for models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from workers.placement.capacity import Capacity

# Limits of the control group that a container runs in, of version 2 and 1.
_GROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
# Device files of NVIDIA and AMD. Without any, torch is not loaded only to find no GPU.
_GPU_FILES = ("nvidia[0-9]*", "kfd")


def own_capacity(*, share: float, labels: Sequence[str]) -> Capacity:
    """Return the capacity of this process: `share` of its GPU's memory, or of the machine's.

    Engines compute on one device, so the memory of further GPUs does not count.
    """
    names = tuple(sorted(set(labels)))
    if any(any(Path("/dev").glob(pattern)) for pattern in _GPU_FILES):
        import torch

        if torch.cuda.is_available():
            memory = torch.cuda.get_device_properties(0).total_memory
            return Capacity(int(share * memory), "cuda", torch.cuda.device_count(), names)
    return Capacity(int(share * machine_memory()), "cpu", os.cpu_count() or 1, names)


def machine_memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, or its container's."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in _GROUP_LIMITS:
        try:
            said = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if said.isdigit():
            found = min(found, int(said))
    return found
