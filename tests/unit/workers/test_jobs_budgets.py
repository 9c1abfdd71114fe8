"""Jobs reserve of their department's budget as they are queued, and pay for what they ran."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from redis import Redis

from governance.errors import QuotaExceeded, Unavailable
from governance.people.models import Person
from governance.policy.models import PolicyState, PolicyVersion
from governance.quotas.models import BudgetHold, HoldState, QuotaLimit
from governance.quotas.reconcile import quotas_reconcile
from governance.quotas.store import read_counts
from governance.rowsecurity import scope
from governance.usage.collector import collect_once
from governance.usage.models import UsageRecord
from registry.datasets.models import DatasetVersion
from tests.unit.policy_support import install_rules
from tests.unit.registry.hosted_world import GENERATE, hosted_version
from tests.unit.workers import company
from tests.unit.workers.test_jobs_leases import MEASURED
from tests.unit.workers.test_jobs_services import claimed, expire, queued
from workers.control.egress_jobs import EgressJobs
from workers.control.jobs import LeaseLost
from workers.jobs.finishing import job_finish
from workers.jobs.hosted import provider_used
from workers.jobs.leases import job_working
from workers.jobs.models import Job, JobKind, JobState
from workers.jobs.requests import evaluate_request
from workers.jobs.services import (
    job_add,
    job_cancel,
    job_claim,
    job_create,
    job_deliver,
    job_fail,
)
from workers.jobs.sweeping import job_sweep

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def commits(redis: Redis, django_capture_on_commit_callbacks: Any) -> Any:
    """Each step as a transaction that is committed, on counters as the controller leaves them."""
    quotas_reconcile(repair=True)
    return lambda: django_capture_on_commit_callbacks(execute=True)


def seconds_held() -> tuple[int, int]:
    """Used and reserved device time of the department, in seconds."""
    (count,) = read_counts([("department:clinical", "gpu_seconds_per_month")]).counts
    return count.used // 1000, count.reserved // 1000


def ran_for(seconds: float) -> None:
    began = timezone.now() - timedelta(seconds=seconds)
    BudgetHold.objects.filter(running_since__isnull=False).update(running_since=began)


def agree(redis: Redis) -> None:
    """Ledger and counters, before and after what is on its way has arrived."""
    assert quotas_reconcile(repair=False).drifts == []
    collect_once(redis, consumer="test", block_ms=1)
    assert quotas_reconcile(repair=False).drifts == []


def test_a_job_that_is_canceled_before_it_runs_gives_everything_back(
    redis: Redis, commits: Any
) -> None:
    job = queued()
    assert seconds_held() == (0, 600)
    with commits():
        job_cancel(actor=company.developer("clinical"), job_id=job.pk)
    assert seconds_held() == (0, 0)
    agree(redis)
    assert not UsageRecord.objects.exists()


def test_a_job_that_dies_pays_for_every_attempt(redis: Redis, commits: Any, settings: Any) -> None:
    settings.JOB_MAX_ATTEMPTS = 2
    job = queued()
    with commits():
        claimed(job)
        ran_for(100)
        expire(job)
        job_sweep()
        claimed(job)
        ran_for(50)
        expire(job)
        job_sweep()
    assert Job.objects.get().state == JobState.DEAD
    used, reserved = seconds_held()
    assert 150 <= used < 200
    assert reserved == 0
    agree(redis)
    record = UsageRecord.objects.get()
    assert (record.outcome, record.endpoint) == ("failed", "jobs/evaluate")
    assert record.request_id == f"job_{job.pk.hex}"


def test_a_worker_that_takes_over_goes_on_with_the_same_account(redis: Redis, commits: Any) -> None:
    job = queued()
    claimed(job)
    ran_for(100)
    expire(job)
    claim = claimed(job)
    ran_for(50)
    with commits():
        job_fail(claim, "broke", retry=False)
    assert 150 <= seconds_held()[0] < 200
    agree(redis)


def test_time_that_an_attempt_waits_for_machines_is_not_paid_for(
    redis: Redis, commits: Any
) -> None:
    claim = claimed(queued())
    ran_for(500)
    job_working(claim, works=False)
    assert BudgetHold.objects.get().running_since is None
    job_working(claim, works=True)
    ran_for(5)
    with commits():
        job_fail(claim, "broke", retry=False)
    assert 5 <= seconds_held()[0] < 60
    agree(redis)


def test_only_the_holder_of_the_lease_moves_the_clock(redis: Redis) -> None:
    job = queued()
    old = claimed(job)
    expire(job)
    claimed(job)
    with pytest.raises(LeaseLost):
        job_working(old, works=False)
    assert BudgetHold.objects.get().running_since is not None


def test_a_result_that_waits_to_be_registered_uses_no_device(redis: Redis, commits: Any) -> None:
    job = queued()
    claim = claimed(job)
    ran_for(8)
    with commits():
        job_deliver(claim, MEASURED)
        hold = BudgetHold.objects.get()
        assert hold.running_since is None
        assert hold.state == HoldState.OPEN
        job_finish(job.pk)
        for _ in range(10):
            if Job.objects.get().state == JobState.DEAD:
                break
            Job.objects.update(dispatch_after=timezone.now())
            job_finish(job.pk)
    assert Job.objects.get().state == JobState.DEAD
    assert 8 <= seconds_held()[0] < 60
    agree(redis)


def test_a_job_over_budget_is_not_queued_and_the_refusal_names_the_limit() -> None:
    QuotaLimit.objects.create(
        kind="gpu_seconds_per_month", limit=599, department=company.department("clinical")
    )
    with pytest.raises(QuotaExceeded, match=r"Department clinical .* never fits") as refused:
        queued()
    assert refused.value.attempt is not None
    assert refused.value.attempt.action == "job:create"
    assert "reserves 600 s of device time until it ends" in (refused.value.hint or "")
    assert "; 599 s of device time are left." in (refused.value.hint or "")
    assert seconds_held() == (0, 0)
    QuotaLimit.objects.all().delete()
    QuotaLimit.objects.create(kind="gpu_seconds_per_month", limit=1000)
    queued()
    with pytest.raises(
        QuotaExceeded, match=r"The organization is limited to 1,000 s of device time"
    ):
        queued("finance")


def test_checking_a_delivery_costs_nobody_anything() -> None:
    job_add(
        actor=company.developer("clinical"),
        kind=JobKind.INTAKE,
        department=company.department("clinical"),
        title="Check",
        spec={},
    )
    assert seconds_held() == (0, 0)
    assert not BudgetHold.objects.exists()


def test_without_a_broker_work_is_queued_unless_something_limits_it(
    settings: Any, redis: Redis
) -> None:
    there = settings.REDIS_URL
    settings.REDIS_URL = "unix:///nowhere.sock"
    queued()
    QuotaLimit.objects.create(kind="money_per_month", limit=1000)
    with pytest.raises(Unavailable):
        queued()
    settings.REDIS_URL = there
    quotas_reconcile(repair=True)
    assert seconds_held() == (0, 600)


def test_a_second_claim_that_loses_changes_no_account(redis: Redis) -> None:
    job = queued()
    claimed(job)
    began = BudgetHold.objects.get().running_since
    assert job_claim(job_id=job.pk, worker="w2") is None
    assert BudgetHold.objects.get().running_since == began


def test_whom_the_policy_lets_cancel_and_queue_elsewhere_moves_the_account_there(
    redis: Redis, commits: Any
) -> None:
    job, stranger = queued(), company.developer("finance")
    rule = {
        "id": "people-help-out",
        "effect": "permit",
        "description": "people help out",
        "principal": {"kinds": ["person"]},
        "actions": ["job:view", "job:create", "job:cancel"],
        "resource_types": ["job"],
    }
    install_rules([*PolicyVersion.objects.get(state=PolicyState.ACTIVE).rules, rule])
    with commits(), scope(stranger):
        job_cancel(actor=stranger, job_id=job.pk)
    assert BudgetHold.objects.get().state == HoldState.ENDED
    assert seconds_held() == (0, 0)
    with scope(stranger):
        job_create(
            actor=stranger,
            kind=JobKind.EVALUATE,
            department=company.department("clinical"),
            title="Evaluate",
            spec={},
        )
    assert seconds_held() == (0, 600)
    agree(redis)


def test_a_job_at_a_provider_reserves_and_pays_for_tokens_instead_of_device_time(
    commits: Any, redis: Redis
) -> None:
    company.developer()
    version = hosted_version(company.model("gpt", GENERATE), Person.objects.earliest("pk"))
    rows = company.data("chats", GENERATE, classification="public")
    DatasetVersion.objects.filter(pk=rows.pk).update(rows=100, size_bytes=20_000)
    rows.refresh_from_db()

    def request() -> Job:
        return evaluate_request(actor=company.developer(), version=version, dataset_version=rows)

    # 13,200 tokens of 2.5 and 6,400 of 10 micro-units.
    limit = QuotaLimit.objects.create(
        kind="money_per_month", limit=96_999, department=company.department("clinical")
    )
    with pytest.raises(QuotaExceeded, match="never fits"):
        request()
    limit.limit = 150_000
    limit.save()
    with commits():
        request()
    with pytest.raises(QuotaExceeded):
        request()
    claimed = EgressJobs().claim_first("egress@a")
    assert claimed is not None
    with commits():
        provider_used(claimed[0], prompt_tokens=1_000, completion_tokens=200)
    assert quotas_reconcile(repair=False).drifts == []
    with commits():
        job_fail(claimed[0], "The provider failed.", retry=False)
    agree(redis)
    record = UsageRecord.objects.get()
    assert (record.prompt_tokens, record.completion_tokens) == (1_000, 200)
    assert (record.cost_micro, record.device_ms) == (4_500, 0)
    request()
