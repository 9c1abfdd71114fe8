"""Measure this machine and its utilization, for the node's page."""

from __future__ import annotations

import os
import platform
import shutil
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import psutil

from workers.clock import CLOCK
from workers.control.messages import DEVICES_MAX, Accelerator, Facts
from workers.nvml import gpus

NAMED = ("assay", "torch", "transformers", "vllm", "celery")


def machine_facts(cache: Path) -> Facts:
    """Return the facts of this machine.

    `cache` is the folder of cached files, whose disk is measured. CPU utilization is measured since
    the last call.
    """
    memory = psutil.virtual_memory()
    folder = next(each for each in (cache, *cache.absolute().parents) if each.is_dir())
    return Facts(
        cpus=psutil.cpu_count() or 1,
        cpu_used=psutil.cpu_percent() / 100,
        load=os.getloadavg()[0],
        memory_bytes=memory.total,
        memory_used_bytes=memory.total - memory.available,
        disk_free_bytes=shutil.disk_usage(folder).free,
        clock_ahead_s=CLOCK.ahead_s,
        devices=_devices(),
        versions={**_versions(), "python": platform.python_version()},
    )


def _versions() -> dict[str, str]:
    versions = {}
    for name in NAMED:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)[:80]
    return versions


def _devices() -> list[Accelerator]:
    """Return the NVIDIA devices; empty without the driver."""
    return [
        Accelerator(
            name=gpu.name,
            memory_bytes=gpu.memory_bytes,
            memory_used_bytes=gpu.memory_used_bytes,
            used=gpu.used,
        )
        for gpu in gpus(DEVICES_MAX)
    ]
