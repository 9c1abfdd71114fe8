"""Launcher of runs as TrainJobs of Kubeflow Trainer; the cluster's controllers create the pods.

Work folders must be on a volume that the pods mount under the same path as this worker.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from governance.errors import Unavailable
from workers.launchers.cluster_api import ClusterApi
from workers.launchers.pods import (
    alive,
    cut,
    disruption,
    pods_end,
    running,
    start_fault,
    unscheduled,
)
from workers.launchers.protocol import ProcessExit
from workers.launchers.trainjobs import (
    FENCE_LABEL,
    GRACE_S,
    JOB_LABEL,
    JOBSET_LABEL,
    MANAGER,
    MANAGER_LABEL,
    KubernetesSettings,
    network_policy,
    runtime_check,
    train_job,
)
from workers.run.order import Resources
from workers.run.outcome import STOPPED

logger = logging.getLogger(__name__)
MINUTE_S = 60.0
# A run fails after its pods could not start for this long, such as without their image.
FAULT_S = 300.0
# Wait this long for pods to end, which includes their grace period.
STUCK_S = GRACE_S + 60.0
# A new attempt waits at most this long for the pods of earlier attempts to end.
ENDED_S = 60.0


@dataclass(slots=True)
class _Run:
    """State of a run: number of pods; times since when it waits, cannot start, or is over; and
    whether its pods can reach each other, or the reason why not."""

    nodes: int
    waits: float = field(default_factory=time.monotonic)
    faulty: float | None = None
    over: float | None = None
    started: bool = False
    works: bool = False
    connected: bool = False
    unconnected: str = ""
    disrupted: str = ""


class KubernetesLauncher:
    """Implements `workers.launchers.protocol.Launcher`."""

    poll_s = 2.0

    def __init__(self, settings: KubernetesSettings) -> None:
        """Connect to the cluster. Raises InvalidInput without a kubeconfig or service account."""
        self._api = ClusterApi(settings)
        self._settings = settings
        self._runs: dict[str, _Run] = {}

    def submit(self, folder: Path, resources: Resources) -> str:
        """Create the run's TrainJob. Raises Unavailable, and InvalidInput if it is refused."""
        runtime = self._api.runtime(self._settings.runtime)
        runtime_check(runtime)
        body = train_job(folder, resources, self._settings, runtime)
        self._api.job_create(body)
        name = str(body["metadata"]["name"])
        self._runs[name] = _Run(resources.nodes, connected=resources.nodes == 1)
        return name

    def poll(self, handle: str) -> ProcessExit | None:
        """Return the end of the run, after all of its pods have ended."""
        run, now = self._runs[handle], time.monotonic()
        try:
            pods, job = self._pods(handle), self._api.job(handle)
            if run.started and _condition(job, "Suspended"):
                # Resuming later would be a second run under one fence.
                self._api.job_delete(handle)
                run.disrupted = "Kueue gave its place to another run."
                return None
        except Unavailable as error:
            logger.warning("Run %s: %s", handle, error.message)
            return None
        self._connect(handle, run, pods)
        run.started = run.started or any(map(running, pods))
        run.works = run.works or (run.connected and sum(map(running, pods)) >= run.nodes)
        run.disrupted = run.disrupted or _first(disruption, pods)
        complete, failed = _condition(job, "Complete"), _condition(job, "Failed")
        if job is not None and not (complete or failed):
            return None if run.works else self._unstarted(run, pods, job, now)
        run.over = run.over or now
        if any(map(alive, pods)) and now < run.over + STUCK_S:
            return None
        if complete:
            return ProcessExit(0)
        if job is None:
            message = run.disrupted or "Its TrainJob was deleted."
            return ProcessExit(STOPPED, sentence=f"Kubernetes ended the run. {message}")
        if failed.get("reason") == "DeadlineExceeded":
            return ProcessExit(STOPPED, sentence="The run reached the deadline of its TrainJob.")
        message = cut(failed.get("message") or failed.get("reason"))
        return pods_end(pods, disrupted=run.disrupted, condition=message)

    def works(self, handle: str) -> bool:
        """Return whether all pods of the run have started, as of the last `poll`."""
        return self._runs[handle].works

    def cancel(self, handle: str, *, kill: bool = False) -> None:
        """Delete the TrainJob: its pods get SIGTERM and a grace period, with `kill` of one second.

        Raises:
            Unavailable: Kubernetes did not answer.
        """
        self._api.job_delete(handle)
        if kill:
            self._api.pods_kill(self._pods(handle))

    def end_earlier(self, folder: Path) -> None:
        """Delete the TrainJobs of lower fences and wait for their pods' end. Raises Unavailable."""
        selector, deadline = f"{JOB_LABEL}={folder.parent.name}", time.monotonic() + ENDED_S
        while True:
            for job in self._api.jobs(selector):
                if _earlier(job["metadata"].get("labels"), folder):
                    self._api.job_delete(job["metadata"]["name"])
            pods = [
                pod
                for pod in self._api.pods(selector)
                if alive(pod) and _earlier(pod.metadata.labels, folder)
            ]
            if not pods:
                return
            self._api.pods_kill(pods)
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"Kubernetes still runs an earlier attempt: pod {pods[0].metadata.name}."
                )
            time.sleep(self.poll_s)

    def runs(self) -> dict[str, Path]:
        """Return the folders of runs whose TrainJob is in the cluster. Raises Unavailable."""
        return {
            str(job["metadata"]["name"]): Path(command[-1])
            for job in self._api.jobs(f"{MANAGER_LABEL}={MANAGER}")
            # A foreign TrainJob can have the same label.
            if (command := (job["spec"].get("trainer") or {}).get("command"))
        }

    def logs(self, handle: str) -> str:
        """Return the last lines of the first pod's output; empty if the pod no longer exists."""
        try:
            pods = self._pods(handle)
        except Unavailable:
            return ""
        return self._api.log(min(pods, key=_index)) if pods else ""

    def forget(self, handle: str) -> None:
        """Delete the TrainJob of a run that is over."""
        self._runs.pop(handle, None)
        try:
            self._api.job_delete(handle)
        except Unavailable as error:
            logger.warning("TrainJob %s is left in the cluster: %s", handle, error.message)

    def _connect(self, handle: str, run: _Run, pods: list[Any]) -> None:
        """Let the pods of several machines reach each other, once all of them exist.

        Other pods cannot reach them. A pod that starts earlier waits for the others.

        Raises:
            InvalidInput: the NetworkPolicy is permanently refused.
        """
        if run.connected or len(pods) < run.nodes:
            return
        try:
            self._api.policy_create(network_policy(handle, pods))
        except Unavailable as error:
            run.unconnected = error.message.rstrip(".")
        else:
            run.connected, run.unconnected = True, ""

    def _pods(self, handle: str) -> list[Any]:
        return self._api.pods(f"{JOBSET_LABEL}={handle}")

    def _unstarted(self, run: _Run, pods: list[Any], job: Any, now: float) -> ProcessExit | None:
        """Return the end of a run that the cluster does not start; None while it may."""
        if _condition(job, "Suspended"):
            # The run waits in Kueue for its quota.
            run.waits = now
            return None
        fault = _first(start_fault, pods) or run.unconnected
        run.faulty = (run.faulty or now) if fault else None
        if run.faulty is not None and now > run.faulty + FAULT_S:
            return ProcessExit(1, sentence=f"Kubernetes cannot start the run: {fault}.")
        minutes = self._settings.wait_minutes
        if now < run.waits + MINUTE_S * minutes:
            return None
        reason = fault or _first(unscheduled, pods) or "its pods did not start"
        return ProcessExit(
            1, sentence=f"Kubernetes did not start the run within {minutes} minutes: {reason}."
        )


def _first(reason: Callable[[Any], str], pods: list[Any]) -> str:
    """Return the first non-empty reason of a pod; empty if there is none."""
    return next(filter(None, map(reason, pods)), "")


def _condition(job: dict[str, Any] | None, kind: str) -> dict[str, Any]:
    """Return a condition of the TrainJob if it is true, else an empty dictionary."""
    for condition in ((job or {}).get("status") or {}).get("conditions") or []:
        if condition.get("type") == kind and condition.get("status") == "True":
            return dict(condition)
    return {}


def _earlier(labels: dict[str, str] | None, folder: Path) -> bool:
    fence = (labels or {}).get(FENCE_LABEL, "")
    return fence.isdecimal() and int(fence) < int(folder.name)


def _index(pod: Any) -> int:
    index = (pod.metadata.annotations or {}).get("batch.kubernetes.io/job-completion-index", "")
    return int(index) if index.isdecimal() else 0
