"""Reasons why the pods of a run ended or do not start.

Works on `V1Pod` of the Kubernetes client. Messages come from the cluster and are shortened.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from workers.launchers.protocol import ProcessExit, out_of_memory
from workers.run.outcome import STOPPED

_MESSAGE_CHARACTERS = 300
_LATE = datetime.max.replace(tzinfo=UTC)
# Reasons of waiting containers that waiting does not resolve.
_FAULTS = frozenset(
    {
        "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull",
        "ImageInspectError", "CreateContainerConfigError", "CreateContainerError",
        "RunContainerError",
    }
)  # fmt: skip
# Reasons of the condition DisruptionTarget:
# https://kubernetes.io/docs/concepts/workloads/pods/disruptions/
_DISRUPTIONS = {
    "PreemptionByScheduler": "A pod of higher priority took its place",
    "EvictionByEvictionAPI": "Its machine is being drained",
    "DeletionByTaintManager": "Its machine may no longer run it",
    "DeletionByPodGC": "Its machine is gone",
    "TerminationByKubelet": "Its machine ended it",
}


def cut(text: str | None) -> str:
    """Return a message of the cluster as one short line without a final period."""
    return " ".join((text or "").split())[:_MESSAGE_CHARACTERS].rstrip(". ")


def alive(pod: Any) -> bool:
    """Return whether processes of the pod may run."""
    return pod.status.phase not in {"Succeeded", "Failed"}


def running(pod: Any) -> bool:
    """Return whether the pod has started, and is not being deleted."""
    return bool(pod.status.phase == "Running" and pod.metadata.deletion_timestamp is None)


def disruption(pod: Any) -> str:
    """Return the reason why Kubernetes ends or has ended the pod; empty if it has not."""
    for condition in pod.status.conditions or []:
        if condition.type == "DisruptionTarget" and condition.status == "True":
            cause = _DISRUPTIONS.get(condition.reason, cut(condition.reason))
            return f"{cause}: {cut(condition.message)}." if condition.message else f"{cause}."
    if pod.status.reason == "Evicted":
        return f"Its machine evicted it: {cut(pod.status.message)}."
    return ""


def start_fault(pod: Any) -> str:
    """Return the reason why the pod's container cannot start; empty while it may."""
    for container in pod.status.container_statuses or []:
        wait = container.state.waiting if container.state else None
        if wait and wait.reason in _FAULTS:
            return f"{wait.reason}: {cut(wait.message)}" if wait.message else wait.reason
    return ""


def unscheduled(pod: Any) -> str:
    """Return the reason why the pod is not scheduled; empty if it is."""
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return cut(condition.message) or cut(condition.reason)
    return ""


def pods_end(pods: Sequence[Any], *, disrupted: str, condition: str) -> ProcessExit:
    """Return the end of a failed run.

    `disrupted` is a disruption that was seen during the run; `condition` is the message of its
    TrainJob, for use if the pods no longer exist.
    """
    terminated = sorted(
        (
            each.state.terminated
            for pod in pods
            for each in pod.status.container_statuses or []
            if each.state and each.state.terminated and each.state.terminated.exit_code
        ),
        # The first one counts, because the others end as a consequence.
        key=lambda each: each.finished_at or _LATE,
    )
    if any(each.reason == "OOMKilled" for each in terminated):
        # If the pods have no limit, the whole machine ran out of memory.
        limited = all(map(_memory_limited, pods))
        return out_of_memory("Kubernetes") if limited else ProcessExit(-signal.SIGKILL)
    disrupted = disrupted or next(filter(None, map(disruption, pods)), "")
    if disrupted:
        return ProcessExit(STOPPED, sentence=f"Kubernetes ended the run. {disrupted}")
    if terminated:
        first = terminated[0]
        if first.exit_code == STOPPED:
            return ProcessExit(STOPPED)
        if first.reason in {"Error", "Completed", None}:
            return ProcessExit(first.exit_code)
        return ProcessExit(first.exit_code, f"{first.reason} ({cut(first.message)})")
    message = next((cut(pod.status.message or pod.status.reason) for pod in pods), "")
    return ProcessExit(1, sentence=f"The run failed in Kubernetes: {message or condition}.")


def _memory_limited(pod: Any) -> bool:
    return all(
        "memory" in ((container.resources and container.resources.limits) or {})
        for container in pod.spec.containers
    )
