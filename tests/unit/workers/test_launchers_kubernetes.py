"""Runs as TrainJobs, against a stand-in for a cluster that starts their processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from governance.errors import InvalidInput, Unavailable
from tests.unit.workers.cluster import (
    Cluster,
    condition,
    container_status,
    status,
)
from tests.unit.workers.cluster_server import serving
from tests.unit.workers.test_launchers_slurm import Held
from tests.unit.workers.test_launchers_trainjobs import JOB, attempt, settings
from tests.unit.workers.test_launchers_trainjobs import root as root
from tests.unit.workers.test_run import Recorder, delivery, order
from tests.waiting import wait_until
from workers.control.jobs import Claim
from workers.launchers.kubernetes import KubernetesLauncher
from workers.launchers.protocol import ProcessExit
from workers.run.order import Order, Resources
from workers.run.outcome import STOPPED
from workers.supervision.supervisor import Supervisor


@pytest.fixture
def cluster(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setattr(KubernetesLauncher, "poll_s", 0.05)
    folder = root / "cluster"
    folder.mkdir()
    cluster = Cluster(folder)
    with serving(cluster):
        yield cluster
    assert cluster.forbidden == [], "The chart's Role permits all that the launcher does."


def launcher(root: Path, cluster: Cluster, **changes: Any) -> KubernetesLauncher:
    return KubernetesLauncher(settings(root, config=str(cluster.folder / "kubeconfig"), **changes))


class Folders:
    """Files on the shared volume."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def attempt_folder(self, claim: Claim) -> Path:
        return self.root / "work" / str(claim.job_id) / str(claim.fence)

    def checkpoints_folder(self, claim: Claim) -> Path:
        return self.root / "work" / str(claim.job_id) / "checkpoints"

    def fetch(self, order: Order, inputs: Path) -> None:
        delivery(inputs / "delivery")

    def leave(self, claim: Claim) -> None:
        shutil.rmtree(self.attempt_folder(claim) / "inputs", ignore_errors=True)


def test_an_order_becomes_a_train_job_whose_run_delivers_its_result(
    root: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter2")
    made = order(delivery(root / "delivery"))
    control = Recorder()
    starts = launcher(root, cluster)
    shown: list[str] = []
    original = cluster.job_create

    def seen(job: dict[str, Any]) -> None:
        original(job)
        shown.append(json.dumps([job, *cluster.of(job["metadata"]["name"])]))

    cluster.job_create = seen  # type: ignore[method-assign]
    claim = Claim(made.job, 1, 1, "intake", "Check", "w1", lease_s=30)
    Supervisor(control, Folders(root), starts).run(claim, made)
    ((kind, result),) = control.told
    assert kind == "deliver", result
    assert result["manifest"]["files"]
    assert "hunter2" not in shown[0]
    assert (cluster.jobs, cluster.pods) == ({}, {}), "A run that is over is removed."


def working(root: Path, fence: int = 1, job: str = JOB) -> Path:
    """An attempt whose run waits for its order until it is told to stop."""
    folder = attempt(root, fence, job)
    os.mkfifo(folder / "order.json")
    return folder


def end_of(starts: KubernetesLauncher, handle: str) -> ProcessExit:
    found: list[ProcessExit] = []

    def over() -> bool:
        found.extend(filter(None, [starts.poll(handle)]))
        return bool(found)

    wait_until(over)
    return found[0]


def test_a_canceled_run_is_over_once_its_process_is(root: Path, cluster: Cluster) -> None:
    starts = launcher(root, cluster)
    folder = working(root)
    handle = starts.submit(folder, Resources())
    wait_until(lambda: (folder / "events.jsonl").exists())
    assert starts.poll(handle) is None
    assert starts.works(handle)
    starts.cancel(handle)
    assert cluster.jobs == {}
    # It opens the order's pipe, and has not seen the signal yet.
    assert starts.poll(handle) is None
    starts.cancel(handle, kill=True)
    ended = end_of(starts, handle)
    assert ended.status == STOPPED
    starts.forget(handle)


def test_a_new_attempt_ends_the_earlier_ones_of_its_job_alone(root: Path, cluster: Cluster) -> None:
    starts, other = launcher(root, cluster), str(uuid.uuid4())
    first = starts.submit(working(root, 2), Resources())
    same_fence = starts.submit(working(root, 10), Resources())
    kept = starts.submit(working(root, 1, other), Resources())
    wait_until(lambda: (root / "work" / JOB / "2" / "events.jsonl").exists())
    (process,) = [each for name, each in cluster.processes.items() if name.startswith(first)]
    starts.end_earlier(root / "work" / JOB / "10")
    assert process.poll() is not None
    assert set(cluster.jobs) == {same_fence, kept}


def test_a_pod_that_does_not_end_holds_up_the_next_attempt(
    root: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.launchers.kubernetes.ENDED_S", 0.2)
    starts = launcher(root, cluster)
    starts.submit(working(root), Resources())
    monkeypatch.setattr(cluster, "pod_delete", lambda *_: None)
    with pytest.raises(Unavailable, match="still runs an earlier attempt"):
        starts.end_earlier(root / "work" / JOB / "2")


def test_an_api_that_is_away_ends_no_run(root: Path, cluster: Cluster) -> None:
    starts = launcher(root, cluster)
    handle = starts.submit(working(root), Resources())
    cluster.away = True
    assert starts.poll(handle) is None
    assert starts.logs(handle) == ""
    with pytest.raises(Unavailable):
        starts.cancel(handle)
    with pytest.raises(Unavailable):
        starts.end_earlier(root / "work" / JOB / "2")
    with pytest.raises(Unavailable):
        starts.submit(attempt(root, 2), Resources())
    starts.forget(handle)
    cluster.away = False
    assert set(cluster.jobs) == {handle}


def test_a_submission_whose_answer_was_lost_has_started_the_run(
    root: Path, cluster: Cluster
) -> None:
    cluster.loses = True
    starts = launcher(root, cluster)
    assert starts.submit(working(root), Resources()) in cluster.jobs
    assert len(cluster.pods) == 1


def test_a_conflict_is_tried_again_and_is_not_taken_for_an_object_that_exists(
    root: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.kubelet = False
    starts = launcher(root, cluster)
    answer = 409, status(409, "the object has been modified", "Conflict")  # Of a ResourceQuota.
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "_created", lambda *_: answer)
        with pytest.raises(Unavailable, match="has been modified"):
            starts.submit(attempt(root), Resources(nodes=2))
    handle = starts.submit(attempt(root, 2), Resources(nodes=2))
    for pod in cluster.pods.values():
        pod["status"]["phase"] = "Running"
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "_created", lambda *_: answer)
        assert (starts.poll(handle), starts.works(handle)) == (None, False)
    assert (starts.poll(handle), starts.works(handle)) == (None, True)


def test_a_job_that_was_canceled_before_its_submission_was_answered_is_ended_in_the_cluster(
    root: Path, cluster: Cluster
) -> None:
    starts = launcher(root, cluster)
    held = starts.submit(attempt(root, 2), Resources())
    create = cluster.job_create

    def away(job: dict[str, Any]) -> None:
        create(job)
        cluster.away = cluster.loses = True

    cluster.job_create = away  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        starts.submit(working(root), Resources())
    assert len(cluster.jobs) == 2
    cluster.away = cluster.loses = False
    supervisor = Supervisor(Held(), Folders(root), starts)
    supervisor.end_lost(root / "elsewhere")
    assert len(cluster.jobs) == 2
    supervisor.end_lost(root / "work")
    assert set(cluster.jobs) == {held}
    wait_until(lambda: cluster.observe() or len(cluster.pods) == 1)


def test_a_train_job_that_is_refused_fails_for_good(root: Path, cluster: Cluster) -> None:
    def refuse(_: Any) -> None:
        raise InvalidInput("spec.trainer.numNodes: must be less than 2")

    cluster.job_create = refuse  # type: ignore[method-assign]
    starts = launcher(root, cluster)
    with pytest.raises(InvalidInput, match="must be less than 2"):
        starts.submit(attempt(root), Resources(nodes=2))
    cluster.runtimes.clear()
    with pytest.raises(Unavailable, match="has no TrainingRuntime 'assay-run'"):
        starts.submit(attempt(root, 2), Resources())


def test_a_drained_machine_ends_its_run_with_a_checkpoint_for_the_next_attempt(
    root: Path, cluster: Cluster
) -> None:
    starts = launcher(root, cluster)
    handle = starts.submit(working(root), Resources())
    wait_until(lambda: (root / "work" / JOB / "1" / "events.jsonl").exists())
    (name,) = cluster.pods
    cluster.drain(name)
    assert starts.poll(handle) is None
    os.killpg(cluster.processes[name].pid, signal.SIGKILL)
    ended = end_of(starts, handle)
    assert ended.status == STOPPED
    assert "Its machine is being drained" in ended.sentence


def submitted(root: Path, cluster: Cluster, **changes: Any) -> tuple[KubernetesLauncher, str, Any]:
    """A run whose pod the test plays: the launcher, its handle, and the pod's status."""
    cluster.kubelet = False
    starts = launcher(root, cluster, **changes)
    handle = starts.submit(attempt(root), Resources())
    (pod,) = cluster.pods.values()
    return starts, handle, pod["status"]


def failed(**state: Any) -> dict[str, Any]:
    return {"phase": "Failed", "containerStatuses": [container_status({"terminated": state})]}


def disrupted(reason: str, message: str) -> dict[str, Any]:
    made = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}
    return {"phase": "Failed", "conditions": [made]}


EVICTED = {
    "phase": "Failed",
    "reason": "Evicted",
    "message": "The node was low on resource: memory.",
}


@pytest.mark.parametrize(
    ("pod", "why", "ended", "sentence"),
    [
        (failed(exitCode=137, reason="OOMKilled"), "BackoffLimitExceeded", -9, "memory limit"),
        (failed(exitCode=1, reason="Error"), "BackoffLimitExceeded", 1, ""),
        (failed(exitCode=STOPPED, reason="Error"), "BackoffLimitExceeded", STOPPED, ""),
        (EVICTED, "BackoffLimitExceeded", STOPPED, "low on resource: memory"),
        (
            disrupted("PreemptionByScheduler", "preempting to accommodate a higher priority pod"),
            "BackoffLimitExceeded",
            STOPPED,
            "A pod of higher priority took its place",
        ),
        (
            {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no free GPU"},
            "BackoffLimitExceeded",
            1,
            "no free GPU",
        ),
        ({"phase": "Failed"}, "DeadlineExceeded", STOPPED, "reached the deadline"),
        ({"phase": "Failed"}, "FailedJobs", 1, "jobset failed"),
    ],
    ids=["memory", "error", "stopped", "evicted", "preempted", "refused", "deadline", "unknown"],
)
def test_the_end_of_a_run_has_a_plain_reason(
    pod: Any, why: str, ended: int, sentence: str, root: Path, cluster: Cluster
) -> None:
    starts, handle, status = submitted(root, cluster)
    status.update(pod)
    assert starts.poll(handle) is None, "Its TrainJob says when a run is over."
    cluster.jobs[handle]["status"] = condition("Failed", why, "jobset failed due to failures")
    found = starts.poll(handle)
    assert found is not None
    assert found.status == ended
    assert sentence in found.sentence
    assert found.retry is (sentence != "memory limit")


def test_a_train_job_that_someone_deletes_is_a_run_that_stopped(
    root: Path, cluster: Cluster
) -> None:
    starts, handle, status = submitted(root, cluster)
    status["phase"] = "Running"
    del cluster.jobs[handle]
    assert starts.poll(handle) is None, "Its pod still writes its checkpoint."
    cluster.pods.clear()
    assert starts.poll(handle) == ProcessExit(
        STOPPED, sentence="Kubernetes ended the run. Its TrainJob was deleted."
    )


def test_a_run_that_kueue_suspends_is_not_resumed_by_it(root: Path, cluster: Cluster) -> None:
    starts, handle, status = submitted(root, cluster)
    status["phase"] = "Running"
    assert starts.poll(handle) is None
    cluster.jobs[handle]["status"] = condition("Suspended", "Suspended", "")
    assert starts.poll(handle) is None
    assert cluster.jobs == {}
    assert starts.poll(handle) == ProcessExit(
        STOPPED, sentence="Kubernetes ended the run. Kueue gave its place to another run."
    )


def test_a_pod_of_a_lost_machine_is_not_waited_for_without_end(
    root: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts, handle, status = submitted(root, cluster)
    status.update(disrupted("DeletionByTaintManager", "unreachable"), phase="Running")
    cluster.jobs[handle]["status"] = condition("Failed", "FailedJobs", "")
    assert starts.poll(handle) is None
    monkeypatch.setattr("workers.launchers.kubernetes.STUCK_S", 0.0)
    ended = starts.poll(handle)
    assert ended is not None
    assert "Its machine may no longer run it: unreachable." in ended.sentence


def test_a_run_that_no_machine_takes_ends_with_the_reason(
    root: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts, handle, status = submitted(root, cluster, wait_minutes=2)
    status["conditions"] = [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
        }
    ]
    assert starts.poll(handle) is None
    monkeypatch.setattr("workers.launchers.kubernetes.MINUTE_S", 0.0)
    cluster.jobs[handle]["status"] = condition("Suspended", "Suspended", "")
    assert starts.poll(handle) is None, "Kueue lets it wait."
    cluster.jobs[handle]["status"] = {}
    ended = starts.poll(handle)
    assert ended is not None
    assert ended.sentence == (
        "Kubernetes did not start the run within 2 minutes: "
        "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    )


def test_an_image_that_cannot_be_pulled_ends_the_run_after_some_minutes(
    root: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts, handle, status = submitted(root, cluster)
    waits = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
    status["containerStatuses"] = [container_status(waits)]
    assert starts.poll(handle) is None
    monkeypatch.setattr("workers.launchers.kubernetes.FAULT_S", 0.0)
    ended = starts.poll(handle)
    assert ended is not None
    assert ended.sentence == (
        "Kubernetes cannot start the run: ImagePullBackOff: Back-off pulling image."
    )


def test_only_pods_of_one_run_reach_one_another(root: Path, cluster: Cluster) -> None:
    cluster.kubelet = False
    starts, other = launcher(root, cluster), str(uuid.uuid4())
    first = starts.submit(attempt(root), Resources(nodes=2))
    second = starts.submit(attempt(root, 1, other), Resources(nodes=2))
    alone = starts.submit(attempt(root, 1, str(uuid.uuid4())), Resources())
    (a, b), (c, d), (e,) = (cluster.of(each) for each in (first, second, alone))
    for pod in cluster.pods.values():
        pod["status"]["phase"] = "Running"
    assert not cluster.reaches(a, b)
    for handle in (first, second, alone):
        assert starts.poll(handle) is None
        assert starts.poll(handle) is None
        assert starts.works(handle)
    pods = [a, b, c, d, e]
    connected = {(x, y) for x in range(5) for y in range(5) if cluster.reaches(pods[x], pods[y])}
    assert connected == {(x, y) for run in ((0, 1), (2, 3)) for x in run for y in run}
    # Without its TrainJob, while pods still write a checkpoint.
    del cluster.jobs[first], cluster.pods[a["metadata"]["name"]]
    cluster.observe()
    assert cluster.reaches(b, b)
    del cluster.pods[b["metadata"]["name"]]
    cluster.observe()
    assert cluster.policies.keys() == {"assay-run", second}


def test_a_run_whose_pods_cannot_be_connected_ends_with_the_reason(
    root: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.kubelet = False
    starts = launcher(root, cluster)
    handle = starts.submit(attempt(root), Resources(nodes=2))
    for pod in cluster.pods.values():
        pod["status"]["phase"] = "Running"
    permits = cluster.permits
    monkeypatch.setattr(
        cluster,
        "permits",
        lambda verb, group, *_: group != "networking.k8s.io" and permits(verb, group, *_),
    )
    assert (starts.poll(handle), starts.works(handle)) == (None, False)
    monkeypatch.setattr("workers.launchers.kubernetes.FAULT_S", 0.0)
    ended = starts.poll(handle)
    assert ended is not None
    assert ended.sentence == (
        "Kubernetes cannot start the run: Kubernetes answered 403: networkpolicies is forbidden: "
        "the user cannot create it."
    )

    def refuse(_: Any) -> None:
        raise InvalidInput("policies are made by the operator")

    monkeypatch.setattr(cluster, "permits", permits)
    cluster.policy_create = refuse  # type: ignore[method-assign]
    with pytest.raises(InvalidInput, match="made by the operator"):
        starts.poll(handle)


def test_the_reason_of_the_cluster_reaches_the_job(root: Path, cluster: Cluster) -> None:
    made, control, starts = order(delivery(root / "delivery")), Recorder(), launcher(root, cluster)
    cluster.kubelet = False

    def plays() -> None:
        wait_until(lambda: cluster.pods)
        (name, pod), (job,) = *cluster.pods.items(), cluster.jobs.values()
        (cluster.folder / f"{name}.log").write_text("CUDA out of memory\n")
        pod["status"] = {**EVICTED}
        job["status"] = condition("Failed", "FailedJobs", "")

    thread = threading.Thread(target=plays)
    thread.start()
    claim = Claim(made.job, 1, 1, "intake", "Check", "w1", lease_s=30)
    Supervisor(control, Folders(root), starts).run(claim, made)
    thread.join()
    # It may be seen before its pod ends.
    assert [each for each in control.told if each[0] != "working"] == [
        (
            "fail",
            "Kubernetes ended the run. Its machine evicted it: The node was low on "
            "resource: memory.",
            True,
        )
    ]


def test_a_run_that_printed_something_shows_it(root: Path, cluster: Cluster) -> None:
    starts, handle, _ = submitted(root, cluster)
    (name,) = cluster.pods
    (cluster.folder / f"{name}.log").write_text("".join(f"line {n}\n" for n in range(100)))
    assert starts.logs(handle).splitlines()[-1] == "line 99"
    assert len(starts.logs(handle).splitlines()) == 40
    cluster.pods.clear()
    assert starts.logs(handle) == ""


def test_a_worker_outside_a_cluster_says_what_it_needs(root: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot reach Kubernetes"):
        KubernetesLauncher(settings(root))
