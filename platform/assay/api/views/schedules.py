"""Schedules of recurring jobs."""

from __future__ import annotations

from django.db.models import QuerySet

from assay.api.representations.workers import (
    JobDetailAnswer,
    ScheduleAnswer,
    ScheduleRunAnswer,
)
from assay.api.routes import Routes
from governance.principals import Principal
from workers.jobs.models import Job
from workers.schedules.models import Schedule, ScheduleRun
from workers.schedules.requests import NewSchedule, ScheduleFilter
from workers.schedules.selectors import schedule_get, schedule_runs, schedules_visible_to
from workers.schedules.services import (
    schedule_create,
    schedule_delete,
    schedule_pause,
    schedule_resume,
    schedule_run,
)
from workers.schedules.watching import Watch, version_watch

routes = Routes("Jobs", ScheduleAnswer)


@routes.list("schedules", "List schedules")
def list_schedules(actor: Principal, query: ScheduleFilter) -> QuerySet[Schedule]:
    return query.applied(schedules_visible_to(actor))


@routes.create("schedules", "Schedule a recurring evaluation or fine-tune", judged=True)
def create(actor: Principal, body: NewSchedule) -> Schedule:
    return schedule_create(actor=actor, schedule=body)


@routes.create(
    "versions/<id:version_id>/watch",
    "Evaluate a hosted version now and every day, on a few rows",
    judged=True,
)
def watch(actor: Principal, version_id: int, body: Watch) -> Schedule:
    return version_watch(actor=actor, version_id=version_id, dataset_version=body.dataset_version)


@routes.get("schedules/<id:schedule_id>", "One schedule and its next times")
def show(actor: Principal, schedule_id: int) -> Schedule:
    return schedule_get(actor=actor, schedule_id=schedule_id)


@routes.delete("schedules/<id:schedule_id>", "Delete a schedule; its jobs are kept")
def delete(actor: Principal, schedule_id: int) -> None:
    schedule_delete(actor=actor, schedule_id=schedule_id)


@routes.list(
    "schedules/<id:schedule_id>/runs",
    "List the last runs of a schedule",
    answer=ScheduleRunAnswer,
    order=("-due_at", "-id"),
)
def runs(actor: Principal, schedule_id: int) -> QuerySet[ScheduleRun]:
    return schedule_runs(actor=actor, schedule_id=schedule_id)


@routes.post("schedules/<id:schedule_id>/pause", "Pause a schedule")
def pause(actor: Principal, schedule_id: int) -> Schedule:
    return schedule_pause(actor=actor, schedule_id=schedule_id)


@routes.post("schedules/<id:schedule_id>/resume", "Resume a schedule, whose jobs then run as you")
def resume(actor: Principal, schedule_id: int) -> Schedule:
    return schedule_resume(actor=actor, schedule_id=schedule_id)


@routes.create(
    "schedules/<id:schedule_id>/run", "Run a schedule now, as you", answer=JobDetailAnswer
)
def run(actor: Principal, schedule_id: int) -> Job:
    return schedule_run(actor=actor, schedule_id=schedule_id)
