"""Read schedules."""

from __future__ import annotations

from django.db.models import QuerySet

from governance.errors import NotFound
from governance.permissions import Action
from governance.policy.selectors import visible_to
from governance.principals import Principal
from workers.schedules.models import Schedule, ScheduleRun


def schedules_visible_to(actor: Principal) -> QuerySet[Schedule]:
    """Return schedules whose jobs the actor may see, newest first."""
    rows = Schedule.objects.select_related("department", "owner", "last_job")
    return visible_to(actor, Action.JOB_VIEW, rows, resource_type="job")


def schedule_get(*, actor: Principal, schedule_id: int) -> Schedule:
    """Return a schedule. Raises NotFound if it does not exist, or the actor may not see it."""
    schedule = schedules_visible_to(actor).filter(pk=schedule_id).first()
    if schedule is None:
        raise NotFound(f"Schedule {schedule_id} does not exist, or you may not see it.")
    return schedule


def schedule_runs(*, actor: Principal, schedule_id: int) -> QuerySet[ScheduleRun]:
    """Return the latest runs of a schedule. Raises NotFound like `schedule_get`."""
    schedule = schedule_get(actor=actor, schedule_id=schedule_id)
    return schedule.runs.select_related("requested_by")
