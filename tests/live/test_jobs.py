"""Jobs through a real Celery worker: nothing that broker or worker loses stays lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from django.utils import timezone
from redis import Redis

from governance.audit.models import AuditEvent
from registry.intake.models import Intake
from tests.live.celery_worker import (
    ROOT,
    controller,
    database_url,
    end_database_connections,
    kill,
    worker,
)
from tests.unit.workers import company
from tests.waiting import PATIENCE_S, wait_until
from workers.dispatch import dispatch_job
from workers.jobs.models import Job, JobState
from workers.jobs.requests import intake_request
from workers.jobs.sweeping import job_sweep

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]
COMPUTE = ("-I", "workers.celery_tasks.jobs", "-Q", "compute", "-P", "threads", "-c", "1")
# Importing torch before the first run takes longer than all of these jobs, which need none.
NO_TORCH = os.pathsep.join([str(ROOT / "tests" / "live" / "no_torch"), str(ROOT)])


class Upload:
    """A delivered file, as an upload handler gives it."""

    def __init__(self, name: str, content: bytes) -> None:
        self.name, self.size, self._content = name, len(content), content

    def chunks(self) -> Iterator[bytes]:
        yield self._content


def delivery() -> Job:
    """An intake job over the smallest files that pass every check; needs no torch."""
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    weights = len(header).to_bytes(8, "little") + header + b"\0\0\0\0"
    intake, job = intake_request(
        actor=company.developer(),
        model=company.model("net", "embeddings"),
        source="https://example.org",
        license="Apache-2.0",
        files=[
            Upload("model.safetensors", weights),
            Upload("config.json", b'{"model_type": "bert", "architectures": ["BertModel"]}'),
            Upload("tokenizer.json", b"{}"),
        ],
    )
    assert job is not None, intake.reason
    return job


def in_state(job: Job, *states: JobState) -> bool:
    job.refresh_from_db()
    return job.state in states


def claims_of(job: Job) -> int:
    return AuditEvent.objects.filter(action="job:claim", subject_id=str(job.pk)).count()


def make_due(job: Job) -> None:
    past = timezone.now() - timedelta(seconds=1)
    Job.objects.filter(pk=job.pk).update(dispatch_after=past)


def finished(job: Job) -> None:
    """Wait for the worker's part, then do the controller's."""
    wait_until(lambda: not in_state(job, JobState.QUEUED, JobState.RUNNING))
    job_sweep()
    assert in_state(job, JobState.SUCCEEDED), job.error
    assert Intake.objects.get(job_id=job.pk).state == "awaiting_sign_off"


def test_jobs_outlive_a_flushed_broker_and_a_restarted_database(
    redis: Redis, tmp_path: Path
) -> None:
    forgotten = delivery()
    assert redis.llen("compute") == 1
    redis.flushall()
    with worker(tmp_path / "one.log", *COMPUTE, PYTHONPATH=NO_TORCH):
        job_sweep()
        assert in_state(forgotten, JobState.QUEUED)
        make_due(forgotten)
        job_sweep()
        finished(forgotten)
        redis.flushall()  # With it goes what the broker knows of the worker's queue.
        end_database_connections()
        finished(delivery())


def test_a_message_that_comes_three_times_runs_the_job_once(redis: Redis, tmp_path: Path) -> None:
    job = delivery()
    dispatch_job(job.pk)
    dispatch_job(job.pk)
    assert redis.llen("compute") == 3
    with worker(tmp_path / "twice.log", *COMPUTE, PYTHONPATH=NO_TORCH):
        wait_until(lambda: redis.llen("compute") == 0)
        finished(job)
        wait_until(lambda: (tmp_path / "twice.log").read_text().count("no job is claimable") == 2)
    assert (job.attempt, claims_of(job)) == (1, 1)


def test_a_killed_workers_job_is_taken_over_and_finished(redis: Redis, tmp_path: Path) -> None:
    job = delivery()
    # Its first report waits for this lock, so the worker dies in the middle of its work.
    with (
        psycopg.connect(database_url()) as locking,
        worker(tmp_path / "doomed.log", *COMPUTE, PYTHONPATH=NO_TORCH) as doomed,
    ):
        locking.execute("LOCK TABLE workers_jobevent IN ACCESS EXCLUSIVE MODE")
        wait_until(lambda: in_state(job, JobState.RUNNING))
        kill(doomed)
    job_sweep()
    assert in_state(job, JobState.RUNNING)
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    with worker(tmp_path / "heir.log", *COMPUTE, PYTHONPATH=NO_TORCH):
        job_sweep()
        finished(job)
    assert (job.attempt, job.fence) == (2, 2)


def test_controller_and_worker_finish_a_job_between_them(redis: Redis, tmp_path: Path) -> None:
    log = tmp_path / "controller.log"
    with controller(log) as process, worker(tmp_path / "worker.log", *COMPUTE, PYTHONPATH=NO_TORCH):
        job = delivery()
        wait_until(lambda: in_state(job, JobState.SUCCEEDED))
        wait_until(lambda: not AuditEvent.objects.filter(sequence=None).exists())
        process.terminate()
        assert process.wait(PATIENCE_S) == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    assert Intake.objects.get(job_id=job.pk).state == "awaiting_sign_off"
    events = AuditEvent.objects.filter(subject_id=str(job.pk)).order_by("pk")
    assert [event.action for event in events] == [
        "job:create",
        "job:claim",
        "job:deliver",
        "job:finish",
    ]
    assert events[0].sequence is not None
