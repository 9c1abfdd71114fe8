"""Measure this machine and its utilization, for the node's page."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from workers.clock import CLOCK
from workers.control.messages import DEVICES_MAX, Accelerator, Facts

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
    with _nvml() as nvml:
        if nvml is None:
            return []
        devices = []
        for index in range(min(DEVICES_MAX, nvml.nvmlDeviceGetCount())):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            name = nvml.nvmlDeviceGetName(handle)
            used = None
            with suppress(nvml.NVMLError):
                used = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
            devices.append(
                Accelerator(
                    name=(name.decode() if isinstance(name, bytes) else name)[:80],
                    memory_bytes=memory.total,
                    memory_used_bytes=memory.used,
                    used=used,
                )
            )
        return devices


@contextmanager
def _nvml() -> Iterator[Any]:
    try:
        import pynvml
    except ImportError:
        yield None
        return
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()
