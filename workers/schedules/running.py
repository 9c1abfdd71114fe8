"""Start the jobs of schedules, once for each due time.

The row of a schedule is locked while a due time is processed, and a unique constraint covers the
due time: so only one of two controllers starts the job.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from django.db import transaction
from django.utils import timezone

from governance.audit.services import audit_record
from governance.errors import (
    DomainError,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    Unavailable,
)
from governance.people.selectors import principal_for_person
from governance.principals import Principal, background, service_principal
from workers.jobs.models import ChainLink, Job, JobState
from workers.jobs.states import TERMINAL
from workers.schedules.cron import due_times
from workers.schedules.models import (
    RUNS_KEPT,
    RunOutcome,
    Schedule,
    ScheduleRun,
    ScheduleState,
)
from workers.schedules.requests import (
    Resolved,
    ScheduledEvaluation,
    ScheduledFineTune,
    names_newest,
    request_check,
    request_resolve,
    request_start,
    stored_request,
)
from workers.schedules.states import SCHEDULE_STATES, schedule_subject

logger = logging.getLogger(__name__)
REFUSALS_MAX = 3
_AT_ONCE = 20
_RETRY_AFTER = timedelta(minutes=1)
_CONTROLLER = service_principal("controller")


def schedules_start_due() -> int:
    """Process every due schedule, for the controller; return the number of schedules."""
    due = Schedule.objects.filter(state=ScheduleState.ACTIVE, next_due_at__lte=timezone.now())
    keys = list(due.order_by("next_due_at").values_list("pk", flat=True)[:_AT_ONCE])
    for key in keys:
        try:
            _run_due(key)
        except Unavailable as error:
            logger.warning("Schedule %d waits: %s", key, error.message)
        except Exception:
            logger.exception("Schedule %d failed", key)
            _put_off(key)
    return len(keys)


def _locked_due(key: int, now: datetime) -> Schedule | None:
    return (
        Schedule.objects.select_for_update(of=("self",), skip_locked=True)
        .select_related("department", "owner", "last_job")
        .filter(pk=key, state=ScheduleState.ACTIVE, next_due_at__lte=now)
        .first()
    )


@transaction.atomic
def _put_off(key: int) -> None:
    """Retry a schedule that raised an unexpected error later, after the others that are due.

    The third consecutive error suspends it.
    """
    now = timezone.now()
    schedule = _locked_due(key, now)
    if schedule is None:
        return
    schedule.refusals += 1
    schedule.next_due_at = now + _RETRY_AFTER
    if schedule.refusals >= REFUSALS_MAX:
        log = f"The controller's log names schedule {schedule.pk}."
        _suspend(schedule, f"An unexpected error stopped it {schedule.refusals} times. {log}")
    schedule.save(update_fields=["next_due_at", "refusals"])


@transaction.atomic
def _run_due(key: int) -> None:
    now = timezone.now()
    schedule = _locked_due(key, now)
    if schedule is None or schedule.next_due_at is None:
        return
    due_at = schedule.next_due_at
    following = due_times(schedule.cron, schedule.time_zone, now)
    schedule.next_due_at = following[0] if following else None
    actor = principal_for_person(schedule.owner)
    if running := job_running(schedule):
        _skip(schedule, due_at, f"{running} has not ended.")
    else:
        _start(schedule, actor, due_at, now)
    if schedule.state == ScheduleState.ACTIVE and schedule.next_due_at is None:
        _suspend(schedule, "Its cron expression has no further times.")
    schedule.save(update_fields=["next_due_at", "refusals", "last_job"])


def _start(schedule: Schedule, actor: Principal, due_at: datetime, now: datetime) -> None:
    missed = due_times(schedule.cron, schedule.time_zone, due_at)
    late = bool(missed) and missed[0] <= now
    try:
        request = stored_request(schedule)
        resolved = request_resolve(actor, request)
        if reason := _nothing_new(schedule, actor, request):
            _skip(schedule, due_at, reason, resolved)
            return
        job = schedule_start(schedule, actor, due_at, request, resolved, late=late)
    except Unavailable:
        raise
    except DomainError as error:
        _refuse(schedule, due_at, error)
        return
    schedule.refusals, schedule.last_job = 0, job
    _record(schedule, "schedule:start", data=started_data(job, resolved))


def _nothing_new(
    schedule: Schedule, actor: Principal, request: ScheduledEvaluation | ScheduledFineTune
) -> str:
    """Return why the job would repeat the last one, if that one succeeded with the same spec.

    Raises:
        DomainError: the actor may not request the job, which is reported even if no version is new.
    """
    last = schedule.last_job
    if schedule.run_unchanged or not names_newest(schedule):
        return ""
    if last is None or last.state != JobState.SUCCEEDED:
        return ""
    # The spec includes digests and the version that judges the answers.
    _, _, spec = request_check(actor, request)
    if spec != last.spec:
        return ""
    since = f"{last.created_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return f"No new version since {since}. {last.title} has succeeded."


@transaction.atomic
def schedule_start(
    schedule: Schedule,
    actor: Principal,
    due_at: datetime,
    request: ScheduledEvaluation | ScheduledFineTune,
    resolved: Resolved,
    *,
    late: bool = False,
    requested_by: int | None = None,
) -> Job:
    """Queue the job of a locked schedule as the actor, and record the run.

    Raises:
        DomainError: the request is refused.
    """
    job = request_start(actor, request, resolved)
    run_add(
        schedule,
        due_at,
        RunOutcome.STARTED,
        job=job,
        resolved=resolved,
        reason="Late; it ran once for all times that were missed." if late else "",
        requested_by=requested_by,
    )
    return job


def started_data(job: Job, resolved: Resolved) -> dict[str, str]:
    """Return the audit data of a start: the job and the versions that it uses."""
    return {"job": str(job.pk), "version": str(resolved.version), "data": str(resolved.data)}


def job_running(schedule: Schedule) -> str:
    """Return the title of an unended job of the last run or its chain; empty if all ended."""
    last = schedule.last_job
    if last is None:
        return ""
    if last.state not in TERMINAL:
        return last.title
    links = ChainLink.objects.filter(first=last).select_related("job", "dataset_version__dataset")
    for link in links:
        if link.job is None and link.state == "waiting":
            return f"the evaluation on {link.dataset_version} that follows {last.title}"
        if link.job is not None and link.job.state not in TERMINAL:
            return link.job.title
    return ""


def run_add(
    schedule: Schedule,
    due_at: datetime,
    outcome: RunOutcome,
    *,
    job: Job | None = None,
    resolved: Resolved | None = None,
    reason: str = "",
    requested_by: int | None = None,
) -> ScheduleRun:
    """Record the outcome of a due time, and delete runs beyond the newest `RUNS_KEPT`."""
    run = ScheduleRun.objects.create(
        schedule=schedule,
        due_at=due_at,
        outcome=outcome,
        job=job,
        version=str(resolved.version)[:120] if resolved else "",
        data=str(resolved.data)[:120] if resolved else "",
        reason=reason[:500],
        requested_by_id=requested_by,
    )
    newest = schedule.runs.order_by("-pk").values_list("pk", flat=True)[:RUNS_KEPT]
    schedule.runs.exclude(pk__in=list(newest)).delete()
    return run


def _skip(
    schedule: Schedule, due_at: datetime, reason: str, resolved: Resolved | None = None
) -> None:
    run_add(schedule, due_at, RunOutcome.SKIPPED, reason=reason, resolved=resolved)
    _record(schedule, "schedule:skip", reason)


def _refuse(schedule: Schedule, due_at: datetime, error: DomainError) -> None:
    """Record a refusal. It suspends the schedule if its owner lacks permission, or if it is the
    third in a row."""
    lost = isinstance(error, (NotAuthenticated, NotFound, NotPermitted))
    if not schedule.owner.is_active:
        reason = "The account of the person it runs as is deactivated."
    elif lost:
        # Without a personal name, because audit events are permanent.
        reason = "The person it runs as may not start it now, or may not see what it needs."
    else:
        reason = error.message
    run_add(schedule, due_at, RunOutcome.REFUSED, reason=reason)
    schedule.refusals += 1
    _record(schedule, "schedule:refuse", reason)
    if lost:
        _suspend(schedule, reason)
    elif schedule.refusals >= REFUSALS_MAX:
        _suspend(schedule, f"Refused {schedule.refusals} times in a row. The last: {reason}")


def _suspend(schedule: Schedule, reason: str) -> None:
    schedule.next_due_at, schedule.reason = None, reason[:500]
    with background(f"schedule-{schedule.pk}", _CONTROLLER):
        SCHEDULE_STATES.move(
            schedule,
            ScheduleState.SUSPENDED,
            actor=_CONTROLLER,
            action="schedule:suspend",
            subject=schedule_subject(schedule),
            fields=["next_due_at", "reason", "refusals"],
            reason=reason[:500],
            department=schedule.department.slug,
        )


def _record(
    schedule: Schedule, action: str, reason: str = "", data: dict[str, str] | None = None
) -> None:
    with background(f"schedule-{schedule.pk}", _CONTROLLER):
        audit_record(
            actor=_CONTROLLER,
            action=action,
            subject=schedule_subject(schedule),
            outcome="failed" if action == "schedule:refuse" else "allowed",
            reason=reason[:500],
            department=schedule.department.slug,
            data=data,
        )
