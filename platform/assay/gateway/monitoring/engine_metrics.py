"""Metrics of engines and GPUs, from the reports of engine workers (`workers.load_reports`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from assay.gateway.access.deployment_entries import DeploymentEntry
from assay.gateway.monitoring.exposition import Reading
from workers.load_reports import DeploymentLoad, GpuLoad, decode_report
from workers.wire import node_of

RUNNING = Reading(
    "assay_engine_requests_running",
    "Answers or inputs that the engines of a deployment compute now, on all workers.",
    ("deployment",),
)
WAITING = Reading(
    "assay_engine_requests_waiting",
    "Answers or inputs that wait in the engines of a deployment; its queue is not included.",
    ("deployment",),
)
BATCH_SIZE = Reading(
    "assay_engine_batch_size",
    "Mean number of answers or inputs in a step of a deployment's engines, in the last seconds.",
    ("deployment",),
)
CACHE = Reading(
    "assay_engine_kv_cache_usage_ratio",
    "Used share of the memory for keys and values, on the worker of a deployment where it is most.",
    ("deployment",),
)
_GPU = ("worker", "gpu")
GPU_USED = Reading(
    "assay_gpu_utilization_ratio", "Share of time in which a worker's GPU computed.", _GPU
)
GPU_MEMORY = Reading("assay_gpu_memory_bytes", "Memory of a worker's GPU.", _GPU)
GPU_MEMORY_USED = Reading("assay_gpu_memory_used_bytes", "Used memory of a worker's GPU.", _GPU)
GPU_POWER = Reading("assay_gpu_power_watts", "Power that a worker's GPU draws.", _GPU)
GPU_TEMPERATURE = Reading("assay_gpu_temperature_celsius", "Temperature of a worker's GPU.", _GPU)
_GPU_READINGS = {
    "used": GPU_USED,
    "memory_bytes": GPU_MEMORY,
    "memory_used_bytes": GPU_MEMORY_USED,
    "watts": GPU_POWER,
    "celsius": GPU_TEMPERATURE,
}


class Worker(NamedTuple):
    """An engine or compute worker; `realm` is empty if it is not on a node."""

    realm: str
    name: str

    @property
    def label(self) -> str:
        """Name in metrics: a node can only report its own workers, so theirs begin with its
        name."""
        return f"{node_of(self.realm)}/{self.name}"[:120] if self.realm else self.name[:120]


def show_loads(
    reports: Iterable[tuple[Worker, bytes | None]], deployments: Iterable[DeploymentEntry]
) -> None:
    """Update the gauges of engines and GPUs from the reports of workers.

    A worker's report counts only for live deployments that its node may hold.
    """
    by_id = {entry.id: entry for entry in deployments}
    loads: defaultdict[str, list[DeploymentLoad]] = defaultdict(list)
    for gauge in _GPU_READINGS.values():
        gauge.clear()
    for worker, data in reports:
        report = None if data is None else decode_report(data)
        if report is None:
            continue
        for gpu in report.gpus:
            _show_gpu(worker.label, gpu)
        for pk, load in report.deployments.items():
            entry = by_id.get(pk)
            if entry is not None and (not worker.realm or worker.realm in entry.realms):
                loads[entry.name].append(load)
    for gauge in (RUNNING, WAITING, BATCH_SIZE, CACHE):
        gauge.clear()
    for name, each in loads.items():
        _show_deployment(name, each)


def _show_deployment(name: str, loads: list[DeploymentLoad]) -> None:
    RUNNING.labels(name).set(sum(load.running for load in loads))
    WAITING.labels(name).set(sum(load.waiting for load in loads))
    steps = sum(load.steps for load in loads)
    BATCH_SIZE.labels(name).set(sum(load.rows for load in loads) / steps if steps else 0.0)
    caches = [load.cache for load in loads if load.cache is not None]
    if caches:
        CACHE.labels(name).set(max(caches))


def _show_gpu(worker: str, gpu: GpuLoad) -> None:
    for name, gauge in _GPU_READINGS.items():
        value = getattr(gpu, name)
        if value is not None:
            gauge.labels(worker, str(gpu.index)).set(value)
