"""The hold on a job while its run works."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from governance.people.models import Department, Person
from registry.intake.models import Intake
from registry.versions.models import Model
from tests.waiting import wait_until
from workers.celery_tasks.jobs import run, supervisor
from workers.control.direct_jobs import DirectJobs
from workers.control.jobs import Claim, LeaseLost
from workers.jobs.leases import job_claim, job_heartbeat
from workers.jobs.models import Job, JobKind, JobState
from workers.jobs.orders import order_make
from workers.supervision.lease import LeaseKeeper


def intake(department: Department) -> Intake:
    person = Person.objects.create(email="supplier@example.org", name="Sue")
    model = Model.objects.create(
        name="bert", department=department, task="embeddings", created_by=person
    )
    return Intake.objects.create(
        model=model,
        source="a supplier",
        license="MIT",
        files=[{"name": "config.json", "size": 2, "sha256": "0" * 64}],
        submitted_by=person,
    )


@pytest.fixture
def claim(transactional_db: None) -> Claim:
    department = Department.objects.create(slug="clinical", name="Clinical")
    job = Job.objects.create(
        kind=JobKind.INTAKE,
        department=department,
        created_by=Person.objects.create(email="dev@example.org", name="Dev"),
        title="Check",
        spec={"intake": intake(department).pk, "task": "embeddings"},
    )
    claim = job_claim(job_id=job.pk, worker="w1")
    assert claim is not None
    return claim


def job_of(claim: Claim) -> Job:
    return Job.objects.get(pk=claim.job_id)


def take_over(claim: Claim) -> None:
    past = timezone.now() - timedelta(seconds=1)
    Job.objects.filter(pk=claim.job_id).update(lease_until=past)
    assert job_claim(job_id=claim.job_id, worker="w2") is not None


def test_lines_and_points_reach_the_job(claim: Claim) -> None:
    with LeaseKeeper(claim, DirectJobs()) as progress:
        progress.enter("training")
        for step in range(1, 2_001):
            progress.metric(step, 2_000, {"loss": 1 / step})
        progress.log("Trained.")
    job = job_of(claim)
    assert job.progress == {"phase": "training", "step": 2_000, "total": 2_000}
    points = [event for event in job.events.all() if event.data]
    assert len(points) == 2_000
    assert points[-1].data == {"loss": 1 / 2_000}
    assert job.events.last().message == "Trained."


def test_a_warning_is_an_event_that_says_so(claim: Claim) -> None:
    with LeaseKeeper(claim, DirectJobs()) as progress:
        progress.warn("188 of 200 conversations are left out.")
        progress.log("Trained.")
    said = [(event.message[:3], event.data) for event in job_of(claim).events.all()]
    assert said == [("188", {"warning": 1}), ("Tra", {})]


def test_a_cancel_reaches_the_run_with_its_next_report(claim: Claim) -> None:
    with LeaseKeeper(claim, DirectJobs()) as progress:
        assert (progress.lost, progress.canceled) == (False, False)
        Job.objects.filter(pk=claim.job_id).update(cancel_requested=True)
        progress.flush()
        assert (progress.canceled, progress.lost) == (True, False)


def test_a_run_whose_lease_was_taken_stops_and_delivers_nothing(claim: Claim) -> None:
    with LeaseKeeper(claim, DirectJobs()) as progress:
        take_over(claim)
        progress.log("still here")
        progress.flush()
        assert progress.lost
    order = order_make(claim)
    with pytest.raises(LeaseLost):
        supervisor().run(claim, order)
    job = job_of(claim)
    assert (job.state, job.worker, job.fence) == (JobState.RUNNING, "w2", 2)
    assert [event.message for event in job.events.all()] == [
        "Attempt 1 ended. The lease of w1 ran out; w2 takes over."
    ]


def test_an_unforeseen_error_is_queued_again_with_class_and_message(claim: Claim) -> None:
    Job.objects.filter(pk=claim.job_id).update(spec={"intake": 404})
    assert DirectJobs().order(claim) is None
    job = job_of(claim)
    assert job.state == JobState.QUEUED
    assert job.error.startswith("DoesNotExist: ")
    assert "Traceback" not in job.error


def test_a_message_for_a_job_that_is_not_to_be_had_does_nothing(claim: Claim) -> None:
    run(str(claim.job_id))
    run("00000000-0000-0000-0000-000000000000")
    assert job_of(claim).attempt == 1


def test_the_lease_is_renewed_while_the_run_works(claim: Claim, settings: Any) -> None:
    settings.JOB_LEASE_S = 0.3
    with LeaseKeeper(replace(claim, lease_s=0.3), DirectJobs()) as progress:
        seen = {job_of(claim).lease_until}
        wait_until(lambda: len(seen.union({job_of(claim).lease_until})) > 1)
        assert (progress.lost, progress.canceled) == (False, False)


def test_a_run_that_cannot_renew_its_lease_stops_before_the_lease_ends(
    claim: Claim, settings: Any
) -> None:
    settings.JOB_LEASE_S = 0.6
    with LeaseKeeper(replace(claim, lease_s=0.6), DirectJobs()) as progress:
        assert job_heartbeat(claim).alive
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE workers_job RENAME TO workers_job_away")
        try:
            wait_until(lambda: progress.lost)
        finally:
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE workers_job_away RENAME TO workers_job")
    assert (progress.lost, progress.canceled) == (True, False)
    assert job_of(claim).state == JobState.RUNNING
