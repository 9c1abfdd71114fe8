"""State of NVIDIA GPUs, read from the driver by NVML (`nvidia-ml-py`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of the machine. `used` is the share of the last sampling period in which it computed,
    from 0 to 1. What the driver or the device does not support is None.
    """

    index: int
    name: str
    memory_bytes: int
    memory_used_bytes: int
    used: float | None = None
    watts: float | None = None
    celsius: float | None = None


def gpus(most: int) -> list[Gpu]:
    """Return at most `most` GPUs; none without the driver, the library or a device.

    A device that the driver lost is left out.
    """
    with _nvml() as nvml:
        if nvml is None:
            return []
        states = []
        for index in range(min(most, nvml.nvmlDeviceGetCount())):
            try:
                states.append(_state(nvml, index))
            except nvml.NVMLError:
                continue
        return states


def _state(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    name = nvml.nvmlDeviceGetName(handle)

    def optional(read: Callable[[], float]) -> float | None:
        try:
            return read()
        except nvml.NVMLError:
            return None

    return Gpu(
        index=index,
        name=(name.decode() if isinstance(name, bytes) else name)[:80],
        memory_bytes=memory.total,
        memory_used_bytes=memory.used,
        used=optional(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100),
        watts=optional(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000),
        celsius=optional(
            lambda: float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        ),
    )


@contextmanager
def _nvml() -> Iterator[Any]:
    """Yield the initialized NVML library, or None without a driver."""
    try:
        import pynvml  # Workers without a GPU may lack it.
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
