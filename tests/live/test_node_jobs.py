"""A compute worker without database and shared folder trains a version. Another one takes over, and
the first one, which stood still for longer than its lease, changes nothing when it goes on.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from django.utils import timezone
from redis import Redis

from assay.local.services import MLflow
from governance.audit.models import AuditEvent
from registry.storage import store
from registry.versions.models import ModelVersion
from tests.live.celery_worker import controller, node_worker
from tests.live.test_nodes import join
from tests.live.web_process import web
from tests.unit.workers import company
from tests.unit.workers.test_tasks_execution import queued
from tests.waiting import wait_until
from workers.jobs.models import Job, JobState
from workers.nodes.services import node_enroll

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]
COMPUTE = ("-I", "workers.celery_tasks.jobs", "-Q", "compute", "-P", "threads", "-c", "1")


def test_a_job_of_a_node_that_stood_still_is_finished_once_by_another_one(
    redis: Redis, tmp_path: Path, mlflow_server: MLflow
) -> None:
    mlflow = mlflow_server.environment
    admin = company.person("ada", "admin")
    keys = []
    with (
        web(tmp_path, **mlflow) as (url, _),
        # Two, of which each would finish the job alone.
        controller(tmp_path / "controller.log", **mlflow),
        controller(tmp_path / "controller2.log", **mlflow),
    ):
        for name in ("gpu-1", "gpu-2"):
            (tmp_path / name).mkdir()
            _, token, _ = node_enroll(actor=admin, name=name)
            joined = join(tmp_path / name, url, token)
            assert joined.returncode == 0, joined.stderr
            keys.append(tmp_path / name / "key")
        job = queued(tmp_path)

        def state() -> JobState:
            job.refresh_from_db()
            return JobState(job.state)

        def worker(number: int) -> object:
            log = tmp_path / f"compute{number}.log"
            return node_worker(log, url, keys[number - 1], *COMPUTE)

        with worker(1) as first:  # type: ignore[attr-defined]
            wait_until(lambda: state() == JobState.RUNNING and job.events.exists())
            os.killpg(first.pid, signal.SIGSTOP)
            assert job.worker.startswith("gpu-1/compute@")
            Job.objects.update(lease_until=timezone.now())
            with worker(2):  # type: ignore[attr-defined]
                wait_until(lambda: state() not in {JobState.RUNNING, JobState.QUEUED})
                os.killpg(first.pid, signal.SIGCONT)
                wait_until(lambda: state() != JobState.FINISHING)
                wait_until(lambda: b"could not be kept" in (tmp_path / "compute1.log").read_bytes())
    assert job.state == JobState.SUCCEEDED, job.error
    assert (job.worker.partition("/")[0], job.attempt) == ("gpu-2", 2)
    version = ModelVersion.objects.get(job_id=job.pk)
    done = AuditEvent.objects.filter(subject_id=str(job.pk))
    for action, times in (("job:claim", 2), ("job:deliver", 1), ("job:finish", 1)):
        assert done.filter(action=action).count() == times, action
    assert store.has_version(version.digest)
    assert not list((tmp_path / "gpu-2" / "data" / "work").glob("*/*")), "nothing of a job stays"
