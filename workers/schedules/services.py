"""Create schedules, pause, resume, delete them, and run one now."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils import timezone

from governance.audit.services import audit_record
from governance.database.locks import lock
from governance.errors import InvalidInput, WrongState
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.engine import Resource
from governance.policy.services import authorize
from governance.principals import Principal
from registry.canonical import json_digest
from registry.resources import acting_person
from workers.jobs.models import Job
from workers.schedules.cron import checked_cron, checked_zone, due_times
from workers.schedules.models import SCHEDULES_MAX, Schedule, ScheduleState
from workers.schedules.requests import NewSchedule, request_check, request_resolve, stored_request
from workers.schedules.running import job_running, schedule_start, started_data
from workers.schedules.selectors import schedule_get
from workers.schedules.states import SCHEDULE_STATES, schedule_lock, schedule_subject


@transaction.atomic
def schedule_create(*, actor: Principal, schedule: NewSchedule) -> Schedule:
    """Create a schedule that repeats a job request as the actor, at the times of a cron expression.

    If the request refers to newest versions, a time is skipped if none is new since the last job,
    unless `run_unchanged`.

    Raises:
        InvalidInput: the times are malformed, or the name is taken; `fields` says which.
        DomainError: the job request is refused; it is checked now and at each time.
        WrongState: the department has too many schedules.
    """
    name = " ".join(schedule.name.split())
    cron, time_zone = checked_cron(schedule.cron), checked_zone(schedule.time_zone)
    person = acting_person(actor)
    department, title, _ = request_check(actor, schedule.request)
    decision = _authorized(actor, title, department.slug)
    # Two concurrent requests must not take the same name, or both the last place.
    lock(f"schedules:{department.pk}")
    others = Schedule.objects.filter(department=department)
    if others.count() >= SCHEDULES_MAX:
        raise WrongState(
            f"{department.name} has {SCHEDULES_MAX} schedules; no other was created.",
            hint="Delete one first.",
        )
    if others.filter(name=name).exists():
        sentence = f"{department.name} has a schedule of this name."
        raise InvalidInput(sentence, fields={"name": [sentence]})
    row = Schedule.objects.create(
        name=name,
        department=department,
        owner=person,
        kind=schedule.kind,
        title=title[:200],
        request=schedule.request.model_dump(mode="json", exclude_none=True),
        cron=cron,
        time_zone=time_zone,
        run_unchanged=schedule.run_unchanged,
        next_due_at=due_times(cron, time_zone, timezone.now())[0],
    )
    audit_record(
        actor=actor,
        action="schedule:create",
        subject=schedule_subject(row),
        department=department.slug,
        data={
            "kind": row.kind,
            "cron": cron,
            "time_zone": time_zone,
            "run_unchanged": row.run_unchanged,
            "request": json_digest(row.request),
        },
        decision=decision,
    )
    return row


@transaction.atomic
def schedule_pause(*, actor: Principal, schedule_id: int) -> Schedule:
    """Start no job until the schedule is resumed. A running job continues.

    Raises:
        NotFound, NotPermitted: the policy denies it.
        WrongState: the schedule is not active.
    """
    schedule, decision = _locked(actor, schedule_id)
    schedule.next_due_at = None
    return _move(schedule, ScheduleState.PAUSED, actor, decision, action="schedule:pause")


@transaction.atomic
def schedule_resume(*, actor: Principal, schedule_id: int) -> Schedule:
    """Start jobs again at the next time, from now on as the actor.

    Raises:
        NotFound, NotPermitted: the policy denies it.
        WrongState: the schedule is active.
        DomainError: the actor may not request the job now.
    """
    schedule, decision = _locked(actor, schedule_id)
    SCHEDULE_STATES.require(schedule, ScheduleState.ACTIVE)
    schedule.owner = acting_person(actor)
    request_check(actor, stored_request(schedule))
    schedule.next_due_at = due_times(schedule.cron, schedule.time_zone, timezone.now())[0]
    schedule.refusals, schedule.reason = 0, ""
    return _move(schedule, ScheduleState.ACTIVE, actor, decision, action="schedule:resume")


@transaction.atomic
def schedule_delete(*, actor: Principal, schedule_id: int) -> None:
    """Delete a schedule and the record of its runs. Its jobs remain.

    Raises:
        NotFound, NotPermitted: the policy denies it.
    """
    schedule, decision = _locked(actor, schedule_id)
    _record(schedule, actor, "schedule:delete", decision)
    schedule.delete()


@transaction.atomic
def schedule_run(*, actor: Principal, schedule_id: int) -> Job:
    """Queue the job of a schedule now, as the actor. The next due times do not change.

    Raises:
        NotFound, NotPermitted: the policy denies it.
        WrongState: the job of the last run has not ended.
        DomainError: the job request is refused.
    """
    schedule, decision = _locked(actor, schedule_id)
    if running := job_running(schedule):
        raise WrongState(
            f"{running} has not ended; the schedule was not run.",
            hint="Wait for it, or cancel it.",
        )
    person = acting_person(actor)
    request = stored_request(schedule)
    resolved = request_resolve(actor, request)
    job = schedule_start(schedule, actor, timezone.now(), request, resolved, requested_by=person.pk)
    schedule.last_job = job
    schedule.save(update_fields=["last_job"])
    _record(schedule, actor, "schedule:run", decision, **started_data(job, resolved))
    return job


def _authorized(actor: Principal, title: str, department: str) -> Authorization:
    return authorize(
        actor=actor,
        action=Action.JOB_CREATE,
        resource=Resource(type="job", name=title, department=department),
    )


def _locked(actor: Principal, schedule_id: int) -> tuple[Schedule, Authorization]:
    schedule = schedule_get(actor=actor, schedule_id=schedule_id)
    decision = _authorized(actor, schedule.title, schedule.department.slug)
    return schedule_lock(schedule.pk), decision


def _move(
    schedule: Schedule,
    to: ScheduleState,
    actor: Principal,
    decision: Authorization,
    action: str,
) -> Schedule:
    SCHEDULE_STATES.move(
        schedule,
        to,
        actor=actor,
        action=action,
        subject=schedule_subject(schedule),
        fields=["next_due_at", "refusals", "reason", "owner"],
        department=schedule.department.slug,
        decision=decision,
    )
    return schedule


def _record(
    schedule: Schedule, actor: Principal, action: str, decision: Authorization, **data: Any
) -> None:
    audit_record(
        actor=actor,
        action=action,
        subject=schedule_subject(schedule),
        department=schedule.department.slug,
        data=data,
        decision=decision,
    )
