"""Jobs of Assay on a cluster of Slurm: whatever happens to an attempt, the adapter is the same."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone
from redis import Redis

from assay.local.services import MLflow
from registry.datasets.models import Dataset, DatasetVersion
from registry.manifests import Manifest
from registry.versions.models import ModelVersion
from tests.cluster.conftest import Cluster
from tests.cluster.test_slurm import QUEUE_S, steps
from tests.live.conftest import mlflow_server as mlflow_server
from tests.stored import stored_file
from tests.unit.workers import company
from tests.waiting import PATIENCE_S, wait_until
from workers.control.direct_jobs import DirectJobs, StoreFiles
from workers.control.jobs import Claim
from workers.jobs import workspace
from workers.jobs.finishing import job_finish
from workers.jobs.models import Job, JobState
from workers.jobs.requests import fine_tune_request
from workers.jobs.services import job_cancel
from workers.jobs.sweeping import job_sweep
from workers.launchers.slurm import SlurmLauncher
from workers.run.events import Checkpoint, EventReader
from workers.run.order import Order
from workers.supervision.supervisor import Supervisor

pytestmark = [pytest.mark.cluster, pytest.mark.torch, pytest.mark.django_db(transaction=True)]
TASK = "text-generation"
STEPS = 40
# SHA-256 of the adapter of a run that nothing disturbed, by its machines.
UNDISTURBED: dict[int, str] = {}


@pytest.fixture(autouse=True)
def allowed(redis: Redis, settings: Any) -> None:
    settings.JOB_MAX_NODES = 2


def conversations() -> DatasetVersion:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What follows {number}?"},
                {"role": "assistant", "content": f"After {number} comes the next one."},
            ]
        }
        for number in range(48)
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    data = company.data(f"numbers-{Dataset.objects.count()}", TASK)
    data.digest, data.size_bytes = hashlib.sha256(content).hexdigest(), len(content)
    data.rows = len(rows)
    data.save()
    file = stored_file(data.digest)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return data


def requested(tiny: Path, nodes: int = 2) -> Job:
    """A LoRA job."""
    files = {path.name: path.read_bytes() for path in tiny.iterdir()}
    return fine_tune_request(
        actor=company.developer(),
        model=company.model("counting", TASK),
        base_version=company.version(company.model("tiny", TASK), files=files),
        method="lora",
        dataset_version=conversations(),
        hyperparameters={"max_steps": STEPS, "batch_size": 2, "learning_rate": 0.01},
        resources={"nodes": nodes, "minutes": 10},
    )


def claimed(job: Job) -> tuple[Claim, Order]:
    Job.objects.filter(pk=job.pk).update(dispatch_after=timezone.now())
    taken = DirectJobs().claim(str(job.pk), "w1")
    assert taken is not None
    return taken


@contextmanager
def attempt(job: Job, launcher: SlurmLauncher) -> Iterator[Path]:
    """Claim the job and supervise the attempt in a thread; its folder."""
    claim, order = claimed(job)

    def supervise() -> None:
        try:
            Supervisor(DirectJobs(), StoreFiles(), launcher, threads=1).run(claim, order)
        finally:
            connections.close_all()

    thread = threading.Thread(target=supervise)
    thread.start()
    try:
        yield workspace.attempt_folder(claim.job_id, claim.fence)
    finally:
        thread.join(900)
        job.refresh_from_db()
    assert not thread.is_alive()


def adapter(job: Job) -> str:
    """SHA-256 of the weights that the job has delivered."""
    assert job.state == JobState.FINISHING, log(job)
    assert job.result["parameters"].get("processes", 1) == job.spec["resources"].get("nodes", 1)
    files = {file.path: file.sha256 for file in Manifest.from_json(job.result["manifest"]).files}
    return files["adapter_model.safetensors"]


def log(job: Job) -> str:
    lines = job.events.exclude(message="").values_list("message", flat=True)
    return "\n".join([f"{job.state}: {job.error}", *lines])


def undisturbed(tiny: Path, launcher: SlurmLauncher, nodes: int = 2) -> str:
    """Return what all the other runs must end in."""
    if nodes not in UNDISTURBED:
        job = requested(tiny, nodes)
        with attempt(job, launcher):
            pass
        UNDISTURBED[nodes] = adapter(job)
    return UNDISTURBED[nodes]


def slurm_jobs() -> list[str]:
    listed = subprocess.run(
        ["squeue", "--noheader", "--format=%i"], capture_output=True, text=True, check=True
    )
    return listed.stdout.split()


def checkpoints(folder: Path) -> list[str]:
    return [e.name for e in EventReader(folder).read() if isinstance(e, Checkpoint)]


def test_a_run_on_two_nodes_ends_in_a_version(
    launcher: SlurmLauncher,
    tiny: Path,
    mlflow_server: MLflow,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.MLFLOW_TRACKING_URI = mlflow_server.url
    for name, value in mlflow_server.environment.items():
        monkeypatch.setenv(name, value)
    job = requested(tiny)
    with attempt(job, launcher):
        pass
    UNDISTURBED[2] = adapter(job)
    assert job_finish(job.pk) is JobState.SUCCEEDED
    version = ModelVersion.objects.get(job_id=job.pk)
    assert version.digest == Manifest.from_json(job.result["manifest"]).digest


def test_a_requeued_run_writes_a_checkpoint_and_resumes_to_the_same_adapter(
    launcher: SlurmLauncher, tiny: Path
) -> None:
    job = requested(tiny)
    with attempt(job, launcher) as folder:
        wait_until(lambda: steps(folder) >= 5, QUEUE_S)
        [handle] = slurm_jobs()
        subprocess.run(["scontrol", "requeue", handle], check=True)
    assert job.state == JobState.QUEUED, log(job)
    assert job.error == "Slurm requeued the run."
    # Written on SIGTERM, not at its regular time.
    [made] = [int(name.removeprefix("checkpoint-")) for name in job.checkpoints]
    assert made % 20, log(job)
    with attempt(job, launcher):
        pass
    assert f"checkpoint-{made}" in log(job), log(job)
    assert adapter(job) == undisturbed(tiny, launcher)


def test_a_run_that_loses_a_machine_resumes_from_its_checkpoint_to_the_same_adapter(
    cluster: Cluster, launcher: SlurmLauncher, tiny: Path
) -> None:
    job = requested(tiny)
    with attempt(job, launcher) as folder:
        wait_until(lambda: checkpoints(folder), QUEUE_S)
        cluster.machines["n2"].kill()
    assert job.state == JobState.QUEUED, log(job)
    assert job.checkpoints, log(job)
    cluster.machines["n2"].start()
    with attempt(job, launcher):
        pass
    assert "Resum" in log(job), log(job)
    assert adapter(job) == undisturbed(tiny, launcher)


def test_a_run_that_loses_only_its_daemon_ends_before_the_next_attempt_writes(
    cluster: Cluster, launcher: SlurmLauncher, tiny: Path
) -> None:
    job = requested(tiny, nodes=1)
    with attempt(job, launcher) as folder:
        wait_until(lambda: checkpoints(folder), QUEUE_S)
        (machine,) = (each for each in cluster.machines.values() if each.processes(str(folder)))
        (run,) = (
            each for each in machine.processes(str(folder)) if "srun" not in each.cmdline()[0]
        )
        # It would end before Slurm takes the machine for dead, 10 s later.
        run.suspend()
        (daemon,) = (each for each in machine.processes("slurmd") if each.name() == "slurmd")
        daemon.kill()
    assert job.state == JobState.QUEUED, log(job)
    assert run.is_running()
    run.resume()
    run.wait(PATIENCE_S)
    assert checkpoints(folder) == list(job.checkpoints)
    with attempt(job, launcher):
        pass
    assert "Resum" in log(job), log(job)
    machine.kill()
    machine.start()
    cluster.await_nodes()
    assert adapter(job) == undisturbed(tiny, launcher, nodes=1)


def test_a_canceled_run_of_several_processes_is_canceled_and_names_no_error(
    launcher: SlurmLauncher, tiny: Path
) -> None:
    job = requested(tiny)
    with attempt(job, launcher) as folder:
        wait_until(lambda: steps(folder) >= 5, QUEUE_S)
        job_cancel(actor=company.developer(), job_id=job.pk)
    assert (job.state, job.error) == (JobState.CANCELED, "")
    assert slurm_jobs() == []


def test_a_run_whose_worker_died_is_ended_in_slurm_although_the_job_has_no_further_attempt(
    launcher: SlurmLauncher, tiny: Path
) -> None:
    job = requested(tiny)
    claim, order = claimed(job)
    supervisor = Supervisor(DirectJobs(), StoreFiles(), launcher)
    folder = workspace.attempt_folder(claim.job_id, claim.fence)
    folder.mkdir(parents=True)
    order.write(folder)
    launcher.submit(folder, order.resources)
    root = folder.parents[1]
    supervisor.end_lost(root)
    assert len(slurm_jobs()) == 1, "Its worker may still be there."
    job_cancel(actor=company.developer(), job_id=job.pk)
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now())
    job_sweep()
    job.refresh_from_db()
    assert job.state == JobState.CANCELED
    supervisor.end_lost(root)
    wait_until(lambda: slurm_jobs() == [], QUEUE_S)
