"""Pause and resume jobs: permissions, and what a paused job holds for how long."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections, transaction
from django.utils import timezone
from redis import Redis

from governance.errors import NotFound, NotPermitted, QuotaExceeded, WrongState
from governance.quotas.models import BudgetHold, QuotaLimit
from governance.quotas.reconcile import quotas_reconcile
from tests.unit.audit_support import bodies
from tests.unit.registry.knowledge_world import TRAVEL, base, document
from tests.unit.workers import company
from tests.unit.workers.test_jobs_budgets import agree, ran_for, seconds_held
from tests.unit.workers.test_jobs_leases import MEASURED
from tests.unit.workers.test_jobs_services import claimed, expire, queued
from workers.control.jobs import LeaseLost
from workers.jobs import workspace
from workers.jobs.budgets import budgets_lower
from workers.jobs.knowledge import document_publish_request, index_request
from workers.jobs.leases import job_checkpoint, job_fail, job_heartbeat, job_paused
from workers.jobs.models import Job, JobState
from workers.jobs.pausing import job_pause, job_resume, paused_jobs_expire
from workers.jobs.services import job_cancel, job_deliver
from workers.jobs.sweeping import job_sweep

pytestmark = pytest.mark.django_db
MANIFEST = {"base": None, "files": [{"path": "a", "size": 1, "sha256": "0" * 64}]}


def paused() -> Job:
    """A job that wrote a checkpoint and was paused then."""
    job = queued()
    claim = claimed(job)
    (workspace.checkpoints_folder(job.pk) / "checkpoint-3").mkdir(parents=True)
    job_checkpoint(claim, name="checkpoint-3", manifest=MANIFEST, remaining=["checkpoint-3"])
    job_pause(actor=company.developer(), job_id=job.pk)
    job_paused(claim)
    job.refresh_from_db()
    return job


def test_a_running_job_is_told_to_stop_and_is_paused_once_its_worker_confirms() -> None:
    job = queued()
    claim = claimed(job)
    assert not job_heartbeat(claim).pause_requested
    asked = job_pause(actor=company.developer(), job_id=job.pk)
    assert (asked.state, asked.stop_request) == (JobState.RUNNING, "pause")
    reply = job_heartbeat(claim)
    assert (reply.pause_requested, reply.cancel_requested) == (True, False)
    assert job_paused(claim) == JobState.PAUSED
    job.refresh_from_db()
    assert (job.lease_until, job.worker, job.stop_request) == (None, "", "")
    assert (job.attempt, job.tries) == (1, 0)
    with pytest.raises(LeaseLost):
        job_paused(claim)
    events = bodies(action="job:pause", subject_id=str(job.pk))
    assert [event["actor_name"] for event in events] == ["dev-clinical", "compute-worker"]


def test_a_paused_job_is_not_claimed_until_it_is_resumed(redis: Redis) -> None:
    job = paused()
    waiting = queued()
    assert claimed(waiting).job_id == waiting.pk
    job_resume(actor=company.developer(), job_id=job.pk)
    claim = claimed(job)
    assert (claim.job_id, claim.attempt) == (job.pk, 2)
    job.refresh_from_db()
    assert set(job.checkpoints) == {"checkpoint-3"}
    (event,) = bodies(action="job:resume", subject_id=str(job.pk))
    assert event["actor_name"] == "dev-clinical"


def test_a_paused_index_job_also_serves_documents_that_change_meanwhile() -> None:
    lead = company.person("lead-clinical", "lead", "clinical")
    embedding = company.version(company.model("tiny", "embeddings"))
    handbook = base(lead, company.department("clinical"), embedding)
    leave = document(lead, handbook, publish=False)
    travel = document(lead, handbook, TRAVEL, "travel.txt", publish=False)
    document_publish_request(actor=lead, version_id=leave.pk)
    job = Job.objects.get()
    job_pause(actor=lead, job_id=job.pk)
    document_publish_request(actor=lead, version_id=travel.pk)
    assert Job.objects.get().state == JobState.PAUSED
    job_resume(actor=lead, job_id=job.pk)
    assert index_request(actor=lead, base=handbook) == job


def test_a_queued_job_leaves_the_line_and_comes_back_to_its_place() -> None:
    first, second = queued(), queued()
    assert job_pause(actor=company.developer(), job_id=first.pk).state == JobState.PAUSED
    assert claimed(second).job_id == second.pk
    third = queued()
    job_resume(actor=company.developer(), job_id=first.pk)
    assert [claimed(third).job_id, claimed(third).job_id] == [first.pk, third.pk]


def test_pauses_use_up_no_attempts_and_failures_do(settings: Any) -> None:
    settings.JOB_MAX_ATTEMPTS = 2
    job, dev = queued(), company.developer()
    for _ in range(3):
        claim = claimed(job)
        job_pause(actor=dev, job_id=job.pk)
        assert job_paused(claim) == JobState.PAUSED
        job_resume(actor=dev, job_id=job.pk)
    assert job_fail(claimed(job), "broke", retry=True) == JobState.QUEUED
    Job.objects.update(dispatch_after=timezone.now())
    assert job_fail(claimed(job), "broke", retry=True) == JobState.DEAD


def test_an_attempt_that_breaks_while_it_is_paused_counts_and_the_job_is_paused() -> None:
    job, dev = queued(), company.developer()
    claim = claimed(job)
    job_pause(actor=dev, job_id=job.pk)
    assert job_fail(claim, "The disk is full.", retry=True) == JobState.PAUSED
    job_resume(actor=dev, job_id=job.pk)
    claimed(job)
    job_pause(actor=dev, job_id=job.pk)
    expire(job)
    # Another worker does not take it over.
    assert claimed(queued()).job_id != job.pk
    job_sweep()
    job.refresh_from_db()
    assert (job.state, job.tries) == (JobState.PAUSED, 2)


def test_a_run_that_stops_without_a_request_has_failed_its_attempt() -> None:
    job = queued()
    assert job_paused(claimed(job)) == JobState.QUEUED
    job.refresh_from_db()
    assert (job.tries, job.error) == (1, "The run stopped without a request to stop.")


def test_a_result_that_was_ready_before_the_pause_counts() -> None:
    job = queued()
    claim = claimed(job)
    job_pause(actor=company.developer(), job_id=job.pk)
    assert job_deliver(claim, MEASURED) == JobState.FINISHING


def test_a_cancel_ends_a_job_that_is_being_paused_and_one_that_is_paused() -> None:
    dev, stopping = company.developer(), queued()
    claim = claimed(stopping)
    job_pause(actor=dev, job_id=stopping.pk)
    job_cancel(actor=dev, job_id=stopping.pk)
    assert job_paused(claim) == JobState.CANCELED
    assert job_cancel(actor=dev, job_id=paused().pk).state == JobState.CANCELED


def test_only_jobs_in_line_or_at_work_are_paused_and_only_paused_ones_resumed() -> None:
    dev, job = company.developer(), queued()
    with pytest.raises(WrongState, match="is queued; only paused jobs can be resumed"):
        job_resume(actor=dev, job_id=job.pk)
    claim = claimed(job)
    job_pause(actor=dev, job_id=job.pk)
    with pytest.raises(WrongState) as early:
        job_resume(actor=dev, job_id=job.pk)
    assert "until its worker has stopped" in early.value.hint
    job_paused(claim)
    with pytest.raises(WrongState, match="is paused; it cannot be paused"):
        job_pause(actor=dev, job_id=job.pk)
    job_cancel(actor=dev, job_id=job.pk)
    with pytest.raises(WrongState, match="is canceled; it cannot be paused"):
        job_pause(actor=dev, job_id=job.pk)
    ending = queued()
    claimed(ending)
    job_cancel(actor=dev, job_id=ending.pk)
    with pytest.raises(WrongState, match="is being canceled"):
        job_pause(actor=dev, job_id=ending.pk)


def test_only_people_who_may_cancel_a_job_pause_and_resume_it() -> None:
    job = queued()
    for service in (job_pause, job_resume):
        with pytest.raises(NotPermitted):
            service(actor=company.person("vera", "viewer", "clinical"), job_id=job.pk)
        with pytest.raises(NotFound):
            service(actor=company.developer("finance"), job_id=job.pk)
    operator = company.person("olga", "operator")
    assert job_pause(actor=operator, job_id=job.pk).state == JobState.PAUSED
    assert job_resume(actor=operator, job_id=job.pk).state == JobState.QUEUED


def test_a_job_that_was_paused_for_a_week_fails_and_its_checkpoints_are_removed(
    django_capture_on_commit_callbacks: Any,
) -> None:
    job, newer = paused(), paused()
    long_ago = timezone.now() - timedelta(days=7, minutes=1)
    Job.objects.filter(pk=job.pk).update(paused_at=long_ago)
    with django_capture_on_commit_callbacks(execute=True):
        assert paused_jobs_expire() == 1
    job.refresh_from_db()
    newer.refresh_from_db()
    assert (job.state, newer.state) == (JobState.FAILED, JobState.PAUSED)
    assert job.error.startswith("It was paused for 7 days")
    assert not workspace.job_folder(job.pk).exists()
    assert workspace.checkpoints_folder(newer.pk).exists()


@pytest.fixture
def commits(redis: Redis, django_capture_on_commit_callbacks: Any) -> Any:
    """Each step as a transaction that is committed, on counters as the controller leaves them."""
    quotas_reconcile(repair=True)
    return lambda: django_capture_on_commit_callbacks(execute=True)


def paused_after_100_s(commits: Any) -> Job:
    """A job that ran for 100 s, and whose reservation the controller has lowered."""
    job = queued()
    with commits():
        claim = claimed(job)
        ran_for(100)
        job_pause(actor=company.developer(), job_id=job.pk)
        job_paused(claim)
        job_sweep()
    return job


def test_a_paused_job_reserves_no_more_than_it_used_and_a_resumed_one_again(
    redis: Redis, commits: Any
) -> None:
    job, dev = paused_after_100_s(commits), company.developer()
    held = BudgetHold.objects.get().reserved_device_ms
    assert 100_000 <= held < 150_000
    assert seconds_held() == (0, held // 1000)
    assert quotas_reconcile(repair=False).drifts == []
    with commits():
        job_resume(actor=dev, job_id=job.pk)
    assert seconds_held() == (0, 600)
    with commits():
        claim = claimed(job)
        ran_for(50)
        job_fail(claim, "broke", retry=False)
    used, reserved = seconds_held()
    assert (150 <= used < 200, reserved) == (True, 0)
    agree(redis)


def test_a_job_is_not_resumed_without_room_in_the_budget_and_stays_paused(
    redis: Redis, commits: Any
) -> None:
    job, dev = queued(), company.developer()
    with commits():
        job_pause(actor=dev, job_id=job.pk)
        job_sweep()
    assert seconds_held() == (0, 0)
    QuotaLimit.objects.create(
        kind="gpu_seconds_per_month", limit=599, department=company.department("clinical")
    )
    with pytest.raises(QuotaExceeded) as refused:
        job_resume(actor=dev, job_id=job.pk)
    assert refused.value.attempt is not None
    assert refused.value.attempt.action == "job:resume"
    job.refresh_from_db()
    assert job.state == JobState.PAUSED


def test_a_job_that_is_resumed_in_a_later_month_is_held_and_charged_there(
    redis: Redis, commits: Any
) -> None:
    job, dev = paused_after_100_s(commits), company.developer()
    hold = BudgetHold.objects.get()
    hold.made_at -= timedelta(days=35)
    hold.save()
    quotas_reconcile(repair=True)
    assert seconds_held() == (0, 0)
    earlier = f"assay:quota:month:{hold.made_at:%Y-%m}:department:clinical"
    redis.hset(earlier, "device_held", hold.reserved_device_ms)
    with commits():
        job_resume(actor=dev, job_id=job.pk)
    assert (redis.hget(earlier, "device_held"), seconds_held()) == (b"0", (0, 600))
    with commits():
        claim = claimed(job)
        ran_for(50)
        job_fail(claim, "broke", retry=False)
    used, reserved = seconds_held()
    assert (150 <= used < 200, reserved) == (True, 0)
    assert redis.hget(earlier, "device_held") == b"0"
    agree(redis)


@pytest.mark.django_db(transaction=True)
def test_the_budget_of_a_job_that_is_being_resumed_is_not_given_back(redis: Redis) -> None:
    quotas_reconcile(repair=True)
    job, dev = queued(), company.developer()
    job_pause(actor=dev, job_id=job.pk)

    def lower() -> int:
        try:
            return budgets_lower()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            job_resume(actor=dev, job_id=job.pk)
            lowered = pool.submit(lower)
            wait([lowered], timeout=3)
        assert lowered.result() == 0
    assert seconds_held() == (0, 600)
