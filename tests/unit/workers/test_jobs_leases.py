"""Claims, fences and what a worker may still write once it lost its lease."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from django.db import connections
from django.utils import timezone

from governance.people.models import Department, Person
from workers.control.jobs import LeaseLost, Report
from workers.jobs import leases
from workers.jobs.leases import (
    backoff_s,
    job_canceled,
    job_claim,
    job_deliver,
    job_fail,
    job_heartbeat,
    job_report,
)
from workers.jobs.models import Job, JobKind, JobState

MEASURED = {
    "metrics": {},
    "baseline": {},
    "baseline_name": "majority",
    "sample_size": 1,
    "details": {},
}


@pytest.fixture
def job(db: None) -> Job:
    return Job.objects.create(
        kind=JobKind.EVALUATE,
        department=Department.objects.create(slug="clinical", name="Clinical"),
        created_by=Person.objects.create(email="dev@example.org", name="Dev"),
        title="Evaluate",
        spec={"version": 1},
    )


def expire(job: Job) -> None:
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


def claimed(job: Job, worker: str = "w1") -> leases.Claim:
    claim = job_claim(job_id=job.pk, worker=worker)
    assert claim is not None
    return claim


def test_a_claim_bumps_fence_and_attempt_and_sets_the_lease(job: Job) -> None:
    claim = claimed(job)
    job.refresh_from_db()
    assert (claim.fence, claim.attempt) == (1, 1)
    assert (job.state, job.worker) == ("running", "w1")
    assert job.lease_until > timezone.now()
    assert job.started_at is not None


@pytest.mark.django_db(transaction=True)
def test_of_two_claims_at_once_one_wins(job: Job) -> None:
    together = Barrier(8)

    def claim(number: int) -> leases.Claim | None:
        try:
            together.wait()
            return job_claim(job_id=job.pk, worker=f"w{number}")
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        won = [each for each in pool.map(claim, range(8)) if each is not None]
    assert len(won) == 1
    job.refresh_from_db()
    assert (job.fence, job.attempt, job.worker) == (1, 1, won[0].worker)


def test_a_message_that_comes_twice_runs_the_job_once(job: Job) -> None:
    claimed(job)
    assert job_claim(job_id=job.pk, worker="w2") is None


def test_an_expired_lease_is_taken_over_and_the_old_fence_writes_nothing(job: Job) -> None:
    old = claimed(job)
    expire(job)
    new = claimed(job, "w2")
    assert (new.fence, new.attempt) == (2, 2)
    assert not job_heartbeat(old).alive
    writes = (
        lambda: job_report(old, reports=[Report(message="late")]),
        lambda: job_deliver(old, MEASURED),
        lambda: job_fail(old, "late", retry=True),
        lambda: job_canceled(old),
    )
    for write in writes:
        with pytest.raises(LeaseLost, match="no longer held by w1"):
            write()
    job.refresh_from_db()
    assert (job.state, job.worker, job.result, job.error) == ("running", "w2", None, "")
    (ended,) = job.events.all()
    assert ended.message == "Attempt 1 ended. The lease of w1 ran out; w2 takes over."
    assert job_heartbeat(new).alive


def test_an_expired_lease_that_nobody_took_is_renewed_by_its_holder(job: Job) -> None:
    claim = claimed(job)
    expire(job)
    assert job_heartbeat(claim).alive
    job.refresh_from_db()
    assert job.lease_until is not None
    assert job.lease_until > timezone.now()


def test_attempts_are_bounded(job: Job) -> None:
    for _ in range(3):
        claimed(job)
        expire(job)
    assert job_claim(job_id=job.pk, worker="w4") is None


def test_a_failure_worth_a_retry_is_queued_with_a_growing_wait_until_it_is_dead(job: Job) -> None:
    waits = []
    for state in (JobState.QUEUED, JobState.QUEUED, JobState.DEAD):
        assert job_fail(claimed(job), "OSError: the disk is full", retry=True) == state
        assert job_claim(job_id=job.pk, worker="w2") is None
        job.refresh_from_db()
        waits.append((job.dispatch_after - timezone.now()).total_seconds())
        assert job.error == "OSError: the disk is full"
        Job.objects.filter(pk=job.pk).update(dispatch_after=timezone.now())
    assert waits[0] < waits[1]
    assert [backoff_s(tries) for tries in range(6)] == [5, 10, 20, 40, 60, 60]


def test_a_failure_for_good_is_not_tried_again(job: Job) -> None:
    assert job_fail(claimed(job), "The file is no model.", retry=False) == JobState.FAILED
    assert job_claim(job_id=job.pk, worker="w2") is None


def test_reports_make_the_log_the_curve_and_the_progress(job: Job) -> None:
    claim = claimed(job)
    job_report(claim, reports=[Report(message="x" * 2000)], phase="training")
    job_report(claim, reports=[Report(step=3, total=9, values={"loss": 1.5})])
    line, point = job.events.all()
    assert len(line.message) == 1000
    assert (point.step, point.data, point.attempt) == (3, {"loss": 1.5}, 1)
    job.refresh_from_db()
    assert job.progress == {"phase": "training", "step": 3, "total": 9}


def test_the_log_is_bounded_and_the_progress_still_moves(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "EVENTS_PER_JOB", 5)
    claim = claimed(job)
    for step in range(1, 9):
        job_report(claim, reports=[Report(step=step, total=8, values={"loss": 1.0})])
    job.refresh_from_db()
    assert job.events.count() == 5
    assert job.progress["step"] == 8


def test_a_result_delivered_after_a_cancel_is_not_registered(job: Job) -> None:
    claim = claimed(job)
    Job.objects.filter(pk=job.pk).update(cancel_requested=True)
    assert job_heartbeat(claim).cancel_requested
    assert job_report(claim, reports=[]).cancel_requested
    assert job_deliver(claim, MEASURED) == JobState.CANCELED
    job.refresh_from_db()
    assert (job.state, job.result) == ("canceled", None)


def test_a_delivered_result_waits_for_the_control_plane(job: Job) -> None:
    assert job_deliver(claimed(job), MEASURED) == JobState.FINISHING
    job.refresh_from_db()
    assert (job.state, job.result["sample_size"], job.lease_until) == ("finishing", 1, None)
    assert (job.result["fence"], job.result["attempt"]) == (1, 1)
    assert job_claim(job_id=job.pk, worker="w2") is None
