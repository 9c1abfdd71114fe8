"""Loads of engines and GPUs on their way from a worker to `/metrics`."""

from __future__ import annotations

import json
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import redis as redis_module

from tests.waiting import wait_until
from workers import load_reports
from workers.load_reports import DeploymentLoad, LoadReporter, decode_report
from workers.nvml import Gpu, gpus
from workers.remote.facts import machine_facts
from workers.wire import EngineLoad, load_key

SHOWN = {"running": 1, "waiting": 2, "steps": 3, "rows": 4, "cache": 0.5}
GPU = {"index": 0, "memory_bytes": 1, "memory_used_bytes": 1}


class NvmlError(Exception):
    """As pynvml's NVMLError."""


class Nvml:
    """NVIDIA's library on a machine with two GPUs; the second one has fallen off the bus, and the
    first one does not report its power."""

    NVMLError = NvmlError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, *, driver: bool = True) -> None:
        self.driver, self.connected = driver, 0

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.driver:
            raise NvmlError("Driver Not Loaded")
        self.connected += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.connected -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index:
            raise NvmlError("GPU is lost")
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(total=80, used=20)

    def nvmlDeviceGetName(self, handle: int) -> bytes:  # noqa: N802
        return b"NVIDIA H100"

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(gpu=75)

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        raise NvmlError("Not Supported")

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:  # noqa: N802
        return 61


def test_gpus_are_read_from_the_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    library = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert gpus(8) == [Gpu(0, "NVIDIA H100", 80, 20, used=0.75, watts=None, celsius=61.0)]
    assert gpus(0) == []
    (device,) = machine_facts(tmp_path).devices
    assert (device.name, device.memory_bytes, device.used) == ("NVIDIA H100", 80, 0.75)
    assert library.connected == 0


@pytest.mark.parametrize("library", [None, Nvml(driver=False)], ids=["no library", "no driver"])
def test_a_machine_without_a_gpu_has_none(monkeypatch: pytest.MonkeyPatch, library: Any) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", library)  # None: its import fails
    assert gpus(8) == []
    assert LoadReporter(redis_module.Redis(), "key", dict).report().gpus == []


def test_this_machines_own_library_is_asked_without_an_error() -> None:
    assert all(0 <= gpu.memory_used_bytes <= gpu.memory_bytes for gpu in gpus(8))


def test_a_report_counts_steps_since_the_one_before() -> None:
    loads = {7: EngineLoad(running=3, waiting=1, steps=10, rows=25, cache=0.25)}
    reporter = LoadReporter(redis_module.Redis(), "key", lambda: dict(loads))
    assert reporter.report().deployments == {7: DeploymentLoad(3, 1, 10, 25, 0.25)}
    loads[7] = EngineLoad(running=1, steps=14, rows=29)
    assert reporter.report().deployments == {7: DeploymentLoad(1, 0, 4, 4)}
    loads[7] = EngineLoad(running=1, steps=2, rows=6)  # loaded again
    assert reporter.report().deployments == {7: DeploymentLoad(1, 0, 2, 6)}
    loads[7] = EngineLoad(running=5)  # an engine that does not report its steps
    assert reporter.report().deployments == {7: DeploymentLoad(5, 0, 1, 5)}


def test_a_report_arrives_as_it_was_sent() -> None:
    reporter = LoadReporter(redis_module.Redis(), "key", lambda: {7: EngineLoad(2, 1, 4, 8, 0.5)})
    report = reporter.report()
    assert decode_report(report.encode()) == report


@pytest.mark.parametrize(
    "report",
    [
        b"", b"[]", b"{", b"x" * 300_000,
        *(json.dumps({"deployments": {"7": {**SHOWN, **change}}}).encode() for change in (
            {"running": -1}, {"cache": 1.5}, {"cache": float("nan")}, {"rows": 10**12},
            {"waiting": "many"},
        )),
        json.dumps({"deployments": {str(pk): SHOWN for pk in range(1_001)}}).encode(),
        json.dumps({"gpus": [{**GPU, "index": 16}]}).encode(),
        json.dumps({"gpus": [GPU] * 17}).encode(),
    ],
)  # fmt: skip
def test_a_report_that_a_compromised_worker_makes_up_is_ignored(report: bytes) -> None:
    assert decode_report(report) is None


def test_a_worker_reports_until_it_ends(
    redis: redis_module.Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And an engine that cannot say its load does not end the reports."""
    monkeypatch.setattr(load_reports, "EVERY_S", 0.01)
    key, stop = load_key("", "engine@a"), threading.Event()
    answers = iter([RuntimeError("the engine broke")])

    def loads() -> dict[int, EngineLoad]:
        if (error := next(answers, None)) is not None:
            raise error
        return {7: EngineLoad(running=1)}

    client = redis_module.Redis(connection_pool=redis.connection_pool)
    thread = threading.Thread(target=LoadReporter(client, key, loads).run, args=(stop,))
    thread.start()
    try:
        wait_until(lambda: redis.get(key))
        assert 0 < int(redis.pttl(key)) <= load_reports.KEPT_MS
        assert "could not be measured" in caplog.text
    finally:
        stop.set()
        thread.join()
    assert redis.get(key) is None
