"""The order in which jobs are claimed, and the limits of departments."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from redis import Redis

from governance.people.models import Department, Person
from governance.quotas.models import BudgetHold, HoldState
from tests.unit.workers import company
from workers.jobs.leases import job_claim
from workers.jobs.line import job_waits
from workers.jobs.models import Job, JobKind, JobPriority, JobState
from workers.jobs.sweeping import job_sweep

logger = logging.getLogger(__name__)
pytestmark = pytest.mark.django_db


def jobs(where: str, count: int = 1, **values: Any) -> list[Job]:
    """Queue jobs of a department, each older than the next."""
    department = company.department(where)
    person, _ = Person.objects.get_or_create(email="dev@example.org", defaults={"name": "Dev"})
    return Job.objects.bulk_create(
        Job(
            kind=JobKind.EVALUATE,
            department=department,
            created_by=person,
            title=f"{where} {number}",
            spec={},
            dispatches=1,
            **values,
        )
        for number in range(count)
    )


def claimed() -> str:
    """Claim the next job, woken by a message for none that exists; return its title."""
    claim = job_claim(job_id=uuid4(), worker="w1")
    return "" if claim is None else claim.title


def end(title: str) -> None:
    Job.objects.filter(title=title).update(
        state=JobState.SUCCEEDED, lease_until=None, finished_at=timezone.now()
    )


def used(where: str, seconds: int, hours_ago: float = 1) -> None:
    ended = timezone.now() - timedelta(hours=hours_ago)
    BudgetHold.objects.create(
        reference=f"job_{uuid4().hex}", department=where, kind="evaluate", state=HoldState.SETTLED,
        device_ms=seconds * 1000, made_at=ended, ended_at=ended,
    )  # fmt: skip


def at_once(where: str, limit: int) -> None:
    company.department(where)
    Department.objects.filter(slug=where).update(jobs_at_once=limit)


def test_of_a_departments_jobs_the_higher_priority_is_claimed_first_and_then_the_oldest() -> None:
    jobs("clinical", 2)
    Job.objects.filter(title="clinical 1").update(title="later")
    jobs("clinical", 1, priority=JobPriority.HIGH)
    Job.objects.filter(title="clinical 0", priority=JobPriority.HIGH).update(title="urgent")
    assert [claimed() for _ in range(4)] == ["urgent", "clinical 0", "later", ""]


def test_high_jobs_of_a_department_do_not_hold_up_another_ones() -> None:
    jobs("clinical", 3, priority=JobPriority.HIGH)
    jobs("finance", 2, priority=JobPriority.LOW)
    order = [claimed() for _ in range(3)]
    assert order[:2] == ["clinical 0", "finance 0"]
    assert order[2] == "clinical 1"


def test_a_thousand_jobs_of_a_department_delay_another_ones_by_one_running_job() -> None:
    jobs("clinical", 1000)
    first = claimed()
    used("clinical", 5)
    jobs("finance")
    end(first)
    assert [first, claimed()] == ["clinical 0", "finance 0"]


def test_departments_take_turns_by_their_running_jobs() -> None:
    jobs("clinical", 3)
    jobs("finance", 3)
    owners = [claimed().split()[0] for _ in range(6)]
    assert (
        sorted(owners[:2]) == sorted(owners[2:4]) == sorted(owners[4:]) == ["clinical", "finance"]
    )


def test_of_departments_that_run_as_many_jobs_the_one_that_used_less_lately_is_first() -> None:
    jobs("clinical")
    jobs("finance")
    jobs("legal")
    used("clinical", 60)
    used("finance", 30)
    used("legal", 3600, hours_ago=7)
    assert [claimed() for _ in range(3)] == ["legal 0", "finance 0", "clinical 0"]


def test_a_full_department_waits_and_the_next_one_runs() -> None:
    jobs("clinical", 3, priority=JobPriority.HIGH)
    jobs("finance")
    at_once("clinical", 2)
    assert [claimed() for _ in range(4)] == ["clinical 0", "finance 0", "clinical 1", ""]
    end("clinical 0")
    assert claimed() == "clinical 2"


def test_the_platforms_limit_is_for_departments_without_one(settings: Any) -> None:
    settings.JOBS_AT_ONCE = 1
    jobs("clinical", 2)
    jobs("finance", 3)
    at_once("finance", 2)
    assert [bool(claimed()) for _ in range(4)] == [True, True, True, False]
    assert Job.objects.filter(state=JobState.RUNNING, department__slug="clinical").count() == 1


def test_a_lost_job_leaves_its_place_to_whoever_takes_it_over() -> None:
    jobs("clinical", 2)
    at_once("clinical", 1)
    assert claimed() == "clinical 0"
    Job.objects.filter(title="clinical 0").update(lease_until=timezone.now() - timedelta(seconds=1))
    assert [claimed(), claimed()] == ["clinical 0", ""]


def test_every_job_runs_once_whichever_messages_are_lost_or_come_twice() -> None:
    names = {job.title for job in jobs("clinical", 3)}
    assert {claimed() for _ in range(3)} == names
    assert claimed() == ""


@pytest.mark.django_db(transaction=True)
def test_two_workers_that_claim_at_once_take_two_jobs_and_keep_to_the_limit() -> None:
    jobs("clinical", 20)
    jobs("finance", 20)
    at_once("clinical", 3)
    together = Barrier(8)

    def claim(_: int) -> str:
        try:
            together.wait()
            return claimed()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        titles = list(pool.map(claim, range(8)))
    assert len(set(titles)) == 8
    running = Job.objects.filter(state=JobState.RUNNING)
    assert running.filter(department__slug="clinical").count() == 3


@pytest.mark.django_db(transaction=True)
def test_a_job_that_another_transaction_holds_is_passed_over() -> None:
    held, _ = jobs("clinical", 2)
    locked, over = Barrier(2), Barrier(2)

    def hold() -> None:
        try:
            with transaction.atomic():
                Job.objects.select_for_update().get(pk=held.pk)
                locked.wait()
                over.wait()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(hold)
        locked.wait()
        assert claimed() == "clinical 1"
        over.wait()
        done.result()


def test_a_claim_takes_as_many_queries_with_ten_thousand_queued_jobs(
    record_property: Any,
) -> None:
    for number in range(10):
        jobs(f"department-{number}", 1000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE workers_job")
    with CaptureQueriesContext(connection) as queries:
        began = time.perf_counter()
        assert claimed()
        took = time.perf_counter() - began
    record_property("claim_ms", round(1000 * took, 1))
    logger.info("A claim with 10,000 queued jobs took %.1f ms", 1000 * took)
    # A savepoint and its release, the lock, the claim, the job, its budget, the event.
    assert len(queries) == 7, [query["sql"][:80] for query in queries]


def test_a_job_says_why_it_waits(settings: Any) -> None:
    clinical = jobs("clinical", 4)
    finance = jobs("finance", 2)
    urgent = jobs("clinical", 1, priority=JobPriority.HIGH)[0]
    used("clinical", 60)
    assert job_waits(urgent) == "2nd in line."
    assert [job_waits(job) for job in finance] == ["Next in line.", "3rd in line."]
    assert [job_waits(job) for job in clinical[:3]] == [
        "4th in line.",
        "5th in line.",
        "6th in line.",
    ]
    at_once("clinical", 2)
    assert [claimed() for _ in range(4)] == ["finance 0", urgent.title, "finance 1", "clinical 0"]
    assert job_waits(clinical[2]) == "Waits: 2 of 2 jobs of Clinical run. 2nd in line of Clinical."
    clinical[0].refresh_from_db()
    assert job_waits(clinical[0]) == ""


def test_the_sweep_sends_no_message_for_a_full_department_until_a_job_of_it_ends(
    redis: Redis,
) -> None:
    jobs("clinical", 2)
    at_once("clinical", 1)
    assert claimed() == "clinical 0"
    job_sweep()
    assert redis.llen("compute") == 0
    end("clinical 0")
    job_sweep()
    assert redis.llen("compute") == 1


def test_the_sweep_keeps_a_bounded_number_of_messages_in_the_queue(redis: Redis) -> None:
    jobs("clinical", 130)
    for _ in range(2):
        job_sweep()
    assert redis.llen("compute") == 100
