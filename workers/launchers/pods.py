"""Reasons from the pods of a run: how they ended, and why they do not start.

Works on `V1Pod` of the Kubernetes client. Messages are the cluster's; they are cut.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from workers.launchers.protocol import Ended, out_of_memory
from workers.run.outcome import STOPPED

_MESSAGE_CHARACTERS = 300
_LATE = datetime.max.replace(tzinfo=UTC)
# Reasons of a container that waits, which waiting does not cure.
_FAULTS = frozenset(
    {
        "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull",
        "ImageInspectError", "CreateContainerConfigError", "CreateContainerError",
        "RunContainerError",
    }
)  # fmt: skip
# Reasons of the condition DisruptionTarget: https://kubernetes.io/docs/concepts/workloads/pods/disruptions/
_DISRUPTIONS = {
    "PreemptionByScheduler": "A pod of higher priority took its place",
    "EvictionByEvictionAPI": "Its machine is being drained",
    "DeletionByTaintManager": "Its machine may no longer run it",
    "DeletionByPodGC": "Its machine is gone",
    "TerminationByKubelet": "Its machine ended it",
}


def cut(text: str | None) -> str:
    """Return a message of the cluster as one short line."""
    return " ".join((text or "").split())[:_MESSAGE_CHARACTERS].rstrip(". ")


def alive(pod: Any) -> bool:
    """Return whether processes of the pod may run."""
    return pod.status.phase not in {"Succeeded", "Failed"}


def running(pod: Any) -> bool:
    """Return whether the pod has started, and was not told to end."""
    return bool(pod.status.phase == "Running" and pod.metadata.deletion_timestamp is None)


def disruption(pod: Any) -> str:
    """Return why Kubernetes ends or has ended the pod from outside; empty when it does not."""
    for each in pod.status.conditions or []:
        if each.type == "DisruptionTarget" and each.status == "True":
            cause = _DISRUPTIONS.get(each.reason, cut(each.reason))
            return f"{cause}: {cut(each.message)}." if each.message else f"{cause}."
    if pod.status.reason == "Evicted":
        return f"Its machine evicted it: {cut(pod.status.message)}."
    return ""


def start_fault(pod: Any) -> str:
    """Return why the pod's container cannot start; empty while it may."""
    for each in pod.status.container_statuses or []:
        waits = each.state.waiting if each.state else None
        if waits and waits.reason in _FAULTS:
            return f"{waits.reason}: {cut(waits.message)}" if waits.message else waits.reason
    return ""


def unscheduled(pod: Any) -> str:
    """Return why no machine takes the pod; empty when one has."""
    for each in pod.status.conditions or []:
        if each.type == "PodScheduled" and each.status == "False":
            return cut(each.message) or cut(each.reason)
    return ""


def pods_end(pods: Sequence[Any], *, disrupted: str, condition: str) -> Ended:
    """Return how a run that failed ended.

    `disrupted` is a disruption that was seen while it worked; `condition` is the message of its
    TrainJob, for pods that are gone.
    """
    terminated = sorted(
        (
            each.state.terminated
            for pod in pods
            for each in pod.status.container_statuses or []
            if each.state and each.state.terminated and each.state.terminated.exit_code
        ),
        # Others end because the first one did.
        key=lambda each: each.finished_at or _LATE,
    )
    if any(each.reason == "OOMKilled" for each in terminated):
        # Without a limit, the memory of the whole machine ran out.
        limited = all(map(_memory_limited, pods))
        return out_of_memory("Kubernetes") if limited else Ended(-signal.SIGKILL)
    disrupted = disrupted or next(filter(None, map(disruption, pods)), "")
    if disrupted:
        return Ended(STOPPED, sentence=f"Kubernetes ended the run. {disrupted}")
    if terminated:
        first = terminated[0]
        if first.exit_code == STOPPED:
            return Ended(STOPPED)
        if first.reason in {"Error", "Completed", None}:
            return Ended(first.exit_code)
        return Ended(first.exit_code, f"{first.reason} ({cut(first.message)})")
    said = next((cut(pod.status.message or pod.status.reason) for pod in pods), "")
    return Ended(1, sentence=f"The run failed in Kubernetes: {said or condition}.")


def _memory_limited(pod: Any) -> bool:
    return all(
        "memory" in ((each.resources and each.resources.limits) or {})
        for each in pod.spec.containers
    )
