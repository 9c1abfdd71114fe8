"""Running jobs that make way for the first in line."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.utils import timezone

from tests.unit.audit_support import bodies
from tests.unit.workers import company
from tests.unit.workers.test_jobs_line import claimed, jobs
from workers.control.jobs import Claim
from workers.jobs import preemption
from workers.jobs.leases import job_claim, job_paused
from workers.jobs.line import job_waits
from workers.jobs.models import Job, JobPriority, JobState
from workers.jobs.pausing import job_pause
from workers.jobs.preemption import Line, Running, Waiting, choose, job_preempt_due
from workers.jobs.services import job_cancel
from workers.jobs.sweeping import job_sweep

AT = datetime(2026, 1, 1, tzinfo=UTC)
AFTER_S = 300


def line(
    key: int, running: int, priority: int | None = None, *, at_once: int = 99, waited_s: float = 900
) -> Line:
    """A department; with `priority` it has a waiting job."""
    first = None if priority is None else Waiting(UUID(int=key), priority, AT, waited_s)
    return Line(key, f"Department {key}", at_once, running, 0.0, first)


def at_work(department: int, count: int = 1, **values: Any) -> list[Running]:
    given = {"priority": 0, "claimed_at": AT, "stops": False, "yields_to": None, "may_stop": True}
    given |= values
    return [Running(job=uuid4(), department=department, **given) for _ in range(count)]


def chosen(lines: list[Line], running: list[Running]) -> tuple[int, int] | None:
    """Return the departments of the job that makes way and of the waiting one."""
    choice = choose(lines, running, after_s=AFTER_S)
    return choice and (choice.giver.department, choice.taker.department)


def test_a_department_without_a_running_job_gets_a_place_of_one_that_runs_two() -> None:
    assert chosen([line(1, 0, 0), line(2, 2)], at_work(2, 2)) == (2, 1)
    assert chosen([line(1, 0, 0), line(2, 1)], at_work(2)) is None
    assert chosen([line(1, 1, 0), line(2, 2)], at_work(1) + at_work(2, 2)) is None
    assert chosen([line(1, 0, 0, waited_s=10), line(2, 2)], at_work(2, 2)) is None
    assert chosen([line(1, 0, 0), line(2, 2)], at_work(2, 2, may_stop=False)) is None
    large = replace(line(1, 0, 0), first=Waiting(UUID(int=1), 0, AT, 900, wants=(2, 0, 1)))
    assert chosen([large, line(2, 2)], at_work(2, 2)) is None
    assert chosen([large, line(2, 2)], at_work(2, 2, wants=(2, 64, 1))) == (2, 1)
    last = replace(line(1, 0, 0), first=Waiting(UUID(int=1), 0, AT, 900, avoids="gpu-1"))
    assert chosen([last, line(2, 2)], at_work(2, 2, node="gpu-1")) is None
    assert chosen([last, line(2, 2)], at_work(2, 2, node="gpu-2")) == (2, 1)


def test_of_one_department_the_higher_priority_gets_the_place_of_a_lower_one() -> None:
    assert chosen([line(1, 1, 1)], at_work(1)) == (1, 1)
    assert chosen([line(1, 1, 0)], at_work(1)) is None
    # Also where the department runs as many jobs as it may.
    assert chosen([line(1, 2, 1, at_once=2)], at_work(1, 2)) == (1, 1)
    # Another department's job is first in line afterward: it would take the place.
    assert chosen([line(1, 3, 1), line(2, 1, 0)], at_work(1, 3) + at_work(2)) == (1, 2)
    full = [line(1, 3, 1, at_once=3), line(2, 1, -1, waited_s=1)]
    assert chosen(full, at_work(1, 3) + at_work(2)) is None


def test_the_department_most_over_its_share_makes_way_with_its_lowest_and_newest_job() -> None:
    lines = [line(1, 0, 0), line(2, 2), line(3, 4)]
    old, new = at_work(3), at_work(3, claimed_at=AT + timedelta(hours=1))
    (high,) = at_work(3, priority=1, claimed_at=AT + timedelta(hours=2))
    running = [*at_work(2, 2), *old, *new, high]
    choice = choose(lines, running, after_s=AFTER_S)
    assert choice is not None
    assert choice.running == new[0]
    assert choice.reason == (
        "It makes way for a job of another department, which has waited for 15 minutes. "
        "Department 3 runs 4 jobs, at least two more than that department."
    )


def test_each_waiting_job_gets_one_place_and_none_is_taken_while_one_comes_free() -> None:
    lines, promised = [line(1, 0, 0), line(2, 4)], {"stops": True, "yields_to": UUID(int=1)}
    assert chosen(lines, at_work(2, 3) + at_work(2, **promised)) is None
    assert chosen(lines, at_work(2, 3) + at_work(2, stops=True)) is None
    third = [*lines, line(3, 0, 0)]
    assert chosen(third, at_work(2, 3) + at_work(2, **promised)) == (2, 3)
    # The job that was promised the place has gone.
    assert chosen(third, at_work(2, 3) + at_work(2, stops=True, yields_to=uuid4())) is None


def test_a_job_that_made_way_never_takes_the_place_back() -> None:
    dice = random.Random(15)
    for _ in range(500):
        lines = [
            line(key, dice.randint(0, 5), dice.choice((None, -1, 0, 1)), at_once=dice.randint(1, 6))
            for key in range(dice.randint(1, 5))
        ]
        running = [
            job
            for each in lines
            for _ in range(each.running)
            for job in at_work(each.department, priority=dice.choice((-1, 0, 1)))
        ]
        choice = choose(lines, running, after_s=AFTER_S)
        if choice is None:
            continue
        stopped = choice.running
        after = {each.department: each.running for each in lines}
        after[choice.giver.department] -= 1
        after[choice.taker.department] += 1
        back = Waiting(stopped.job, stopped.priority, AT - timedelta(days=1), 900)
        again = [
            Line(
                each.department, each.name, each.at_once, after[each.department], 0.0,
                back if each.department == stopped.department else None,
            )
            for each in lines
        ]  # fmt: skip
        (taker,) = at_work(choice.taker.department, priority=choice.waiting.priority)
        rest = [job for job in running if job != stopped]
        found = choose(again, [*rest, taker], after_s=AFTER_S)
        assert found is None or found.running != taker


@pytest.fixture
def preempting(settings: Any) -> None:
    settings.PREEMPT_AFTER_S = AFTER_S


def running_for_an_hour(where: str, count: int, **values: Any) -> list[Claim]:
    """Claim jobs of a department that have a checkpoint."""
    jobs(where, count, **values)
    claims = [job_claim(job_id=uuid4(), worker="w1") for _ in range(count)]
    began = timezone.now() - timedelta(hours=1)
    Job.objects.filter(state=JobState.RUNNING).update(
        claimed_at=began, checkpoints={"checkpoint-1": {}}
    )
    return [claim for claim in claims if claim is not None]


def waiting_long(where: str, **values: Any) -> Job:
    (job,) = jobs(where, 1, **values)
    since = timezone.now() - timedelta(minutes=12)
    Job.objects.filter(pk=job.pk).update(queued_at=since, title=f"{where} waits")
    return job


database = pytest.mark.django_db


@database
def test_a_preempted_job_goes_back_in_line_without_a_failed_attempt(preempting: None) -> None:
    claims = running_for_an_hour("finance", 2)
    waiting = waiting_long("clinical")
    asked = job_preempt_due()
    assert asked in {claim.job_id for claim in claims}
    assert job_preempt_due() is None
    assert job_waits(waiting).endswith("A running job writes a checkpoint to make way for it.")
    claim = next(claim for claim in claims if claim.job_id == asked)
    assert job_paused(claim) == JobState.QUEUED
    stopped = Job.objects.get(pk=asked)
    assert (stopped.tries, stopped.stop_request) == (0, "")
    assert "which has waited for 12 minutes" in stopped.stop_reason
    (event,) = bodies(action="job:preempt", subject_id=str(asked))
    assert event["actor_name"] == "controller"
    # Its readers may not see jobs of the other department.
    assert "for" not in event["data"]
    assert event["reason"] == stopped.stop_reason
    (requeued,) = bodies(action="job:requeue", subject_id=str(asked))
    assert requeued["reason"] == stopped.stop_reason
    job_sweep()
    assert claimed() == "clinical waits"
    assert claimed() == stopped.title
    # It has just begun again, and the shares are even.
    waiting_long("clinical")
    assert job_preempt_due() is None


@database
def test_nothing_is_preempted_unless_the_setting_says_so() -> None:
    running_for_an_hour("finance", 2)
    waiting_long("clinical")
    assert job_preempt_due() is None


@database
@pytest.mark.parametrize(
    "changes",
    [{"checkpoints": {}}, {"claimed_at": None}, {"cancel_requested": True}],
    ids=["no checkpoint", "begun by an older release", "canceled"],
)
def test_jobs_that_would_lose_work_are_not_preempted(
    preempting: None, changes: dict[str, Any]
) -> None:
    running_for_an_hour("finance", 2)
    Job.objects.filter(state=JobState.RUNNING).update(**changes)
    waiting_long("clinical")
    assert job_preempt_due() is None


@database
def test_no_job_makes_way_on_the_node_that_may_not_have_the_last_attempt(
    preempting: None, settings: Any
) -> None:
    settings.JOB_MAX_ATTEMPTS = 2
    claims = running_for_an_hour("finance", 2)
    waiting = waiting_long("clinical")
    Job.objects.filter(pk=waiting.pk).update(attempt=1, worker="gpu-1/compute@a")
    running = Job.objects.filter(state=JobState.RUNNING)
    running.update(worker="gpu-1/compute@b")
    assert job_preempt_due() is None
    running.filter(pk=claims[0].job_id).update(worker="w1")
    assert job_preempt_due() == claims[0].job_id


@database
def test_a_job_that_began_lately_is_left_alone(preempting: None) -> None:
    running_for_an_hour("finance", 2)
    lately = timezone.now() - timedelta(seconds=preemption.LEAST_RUN_S - 30)
    Job.objects.filter(state=JobState.RUNNING).update(claimed_at=lately)
    waiting_long("clinical")
    assert job_preempt_due() is None


@database
def test_a_preempted_job_that_a_person_pauses_still_makes_way(preempting: None) -> None:
    claims = running_for_an_hour("finance", 2)
    waiting_long("clinical")
    asked = job_preempt_due()
    assert asked is not None
    job_pause(actor=company.developer("finance"), job_id=asked)
    assert job_preempt_due() is None
    claim = next(claim for claim in claims if claim.job_id == asked)
    assert job_paused(claim) == JobState.PAUSED
    assert claimed() == "clinical waits"


@database
def test_the_sweep_preempts_for_a_higher_priority_of_the_same_department(preempting: None) -> None:
    running_for_an_hour("clinical", 1, priority=JobPriority.LOW)
    waiting = waiting_long("clinical", priority=JobPriority.HIGH)
    job_sweep()
    (running,) = Job.objects.filter(state=JobState.RUNNING)
    assert running.stop_request == "preempt"
    assert "a job of high priority of its department" in running.stop_reason
    (event,) = bodies(action="job:preempt", subject_id=str(running.pk))
    assert event["data"]["for"] == str(waiting.pk)
    job_cancel(actor=company.developer(), job_id=running.pk)
