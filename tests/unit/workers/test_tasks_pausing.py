"""A training run that is paused, resumed and preempted ends in the bytes of one that is not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone
from redis import Redis

from tests.unit.workers import company
from tests.unit.workers.test_tasks_execution import queued
from workers.celery_tasks.jobs import supervisor
from workers.control.direct_jobs import DirectJobs
from workers.control.jobs import Claim
from workers.jobs import preemption
from workers.jobs.leases import job_claim
from workers.jobs.models import Job, JobKind, JobPriority, JobState
from workers.jobs.orders import order_make
from workers.jobs.pausing import job_pause, job_resume
from workers.jobs.preemption import job_preempt_due
from workers.jobs.reruns import job_clone
from workers.jobs.services import job_create
from workers.supervision import lease

pytestmark = [pytest.mark.torch, pytest.mark.django_db(transaction=True)]
EPOCHS = 30


class AtACheckpoint(DirectJobs):
    """The control plane of an attempt; does `then` when its first checkpoint is recorded."""

    def __init__(self, then: Callable[[], object]) -> None:
        self.then: Callable[[], object] | None = then

    def checkpoint(
        self, claim: Claim, name: str, manifest: Mapping[str, Any], remaining: Collection[str]
    ) -> None:
        super().checkpoint(claim, name, manifest, remaining)
        then, self.then = self.then, None
        if then is not None:
            then()


def attempt(job: Job, then: Callable[[], object] = lambda: None) -> Job:
    """Run one attempt of the job that is first in line, as a worker does."""
    claim = job_claim(job_id=job.pk, worker="w1")
    assert claim is not None
    assert claim.job_id == job.pk
    replace(supervisor(), control=AtACheckpoint(then), threads=1).run(claim, order_make(claim))
    job.refresh_from_db()
    return job


def urgent_job_that_waits() -> Job:
    lead = company.person("lea", "lead", "clinical")
    job = job_create(
        actor=lead,
        kind=JobKind.EVALUATE,
        department=company.department("clinical"),
        title="Urgent",
        spec={},
        priority=JobPriority.HIGH,
    )
    Job.objects.filter(pk=job.pk).update(queued_at=timezone.now() - timedelta(hours=1))
    return job


def test_a_run_that_is_paused_and_preempted_ends_in_the_same_bytes(
    redis: Redis, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PREEMPT_AFTER_S = 60
    settings.JOB_MAX_ATTEMPTS = 1
    monkeypatch.setattr(preemption, "LEAST_RUN_S", 0)
    # A step takes milliseconds: the request to stop must arrive before the last one.
    monkeypatch.setattr(lease, "RENEW_S", 0.1)
    dev = company.developer()
    first = queued(tmp_path)
    Job.objects.filter(pk=first.pk).update(state=JobState.CANCELED)
    changes = {"hyperparameters": {"epochs": EPOCHS}}
    whole = attempt(job_clone(actor=dev, job_id=first.pk, changes=changes))
    assert whole.state == JobState.FINISHING, whole.error

    job = job_clone(actor=dev, job_id=first.pk, changes=changes)
    attempt(job, lambda: job_pause(actor=dev, job_id=job.pk))
    assert job.state == JobState.PAUSED, job.error
    steps = [job.progress["step"]]
    assert 0 < steps[0] < whole.progress["step"]

    job_resume(actor=dev, job_id=job.pk)
    waiting: list[Job] = []

    def preempt() -> None:
        waiting.append(urgent_job_that_waits())
        # A round passes over a job whose row is locked, as by a report of its run.
        rounds = (job_preempt_due() for _ in range(1_000))
        assert next(filter(None, rounds), None) == job.pk

    attempt(job, preempt)
    assert job.state == JobState.QUEUED, job.error
    steps.append(job.progress["step"])
    assert steps[0] < steps[1] < whole.progress["step"]
    claim = job_claim(job_id=uuid4(), worker="w2")
    assert claim is not None
    assert claim.job_id == waiting[0].pk

    attempt(job)
    assert job.state == JobState.FINISHING, job.error
    assert (job.attempt, job.interruptions) == (3, 2)
    assert job.result["manifest"] == whole.result["manifest"]
    assert job.result["metrics"] == whole.result["metrics"]
    resumed = job.events.filter(message__startswith="Resuming from checkpoint-")
    assert resumed.count() == 2
