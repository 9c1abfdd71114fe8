"""State machine of a schedule, and its name in audit events."""

from __future__ import annotations

from governance.audit.services import Subject
from governance.state_machine import StateMachine
from workers.schedules.models import Schedule, ScheduleState

ALLOWED_TRANSITIONS: dict[ScheduleState, frozenset[ScheduleState]] = {
    ScheduleState.ACTIVE: frozenset({ScheduleState.PAUSED, ScheduleState.SUSPENDED}),
    ScheduleState.PAUSED: frozenset({ScheduleState.ACTIVE}),
    ScheduleState.SUSPENDED: frozenset({ScheduleState.ACTIVE}),
}
SCHEDULE_STATES = StateMachine(
    model=Schedule,
    noun="schedule",
    table=ALLOWED_TRANSITIONS,
    related=("department", "owner", "last_job"),
    label=lambda schedule: repr(schedule.name),
)
schedule_lock = SCHEDULE_STATES.locked


def schedule_subject(schedule: Schedule) -> Subject:
    """Return a schedule as a subject of audit events, without the name that a person chose."""
    return Subject(type="schedule", id=str(schedule.pk), name=schedule.title)
