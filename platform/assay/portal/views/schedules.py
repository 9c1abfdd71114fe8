"""Schedules of jobs: the list, one with its runs, a new one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect

from assay.portal.access import may
from assay.portal.forms.schedules import ScheduleForm, data_choices, version_choices
from assay.portal.http import ActionScreen, cleaned, number_in
from assay.portal.lists import ListScreen, states
from governance.bounds import TITLE_MAX
from governance.errors import InvalidInput
from governance.permissions import Action
from governance.principals import Principal
from governance.schemas import parsed
from registry.catalog import get_task
from registry.versions.models import Model
from registry.versions.selectors import model_get, version_get
from workers.jobs.chains import chain_draft_of, chain_of
from workers.jobs.models import Job, JobKind
from workers.jobs.reruns import is_repeatable, request_of
from workers.jobs.selectors import job_get
from workers.jobs.training import BASE_KINDS
from workers.schedules import models
from workers.schedules.models import Schedule, ScheduleState
from workers.schedules.requests import NewSchedule, ScheduleFilter, names_newest
from workers.schedules.selectors import schedule_get, schedules_visible_to
from workers.schedules.services import (
    schedule_create,
    schedule_delete,
    schedule_pause,
    schedule_resume,
    schedule_run,
)

RESULTS_SHOWN = 3


class Schedules(ListScreen):
    """Every schedule that the person may see, with its next times and last results."""

    template_name = "portal/jobs/schedules.html"
    title = "Schedules"
    lead = "Evaluations and fine-tunes that start at set times."
    columns = "Schedule | State | Times | Next runs (UTC) | Last results (UTC) | Department"
    filters = ScheduleFilter
    toolbar = (states(ScheduleState.choices),)

    def rows(self) -> QuerySet[Schedule]:
        runs = models.ScheduleRun.objects.select_related("job")[:RESULTS_SHOWN]
        last_runs = Prefetch("runs", queryset=runs, to_attr="last_runs")
        return schedules_visible_to(self.actor).prefetch_related(last_runs)


class SchedulePage(ActionScreen):
    """One schedule with its runs."""

    template_name = "portal/jobs/schedule.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        schedule = schedule_get(actor=self.actor, schedule_id=id)
        return {
            "schedule": schedule,
            "next": schedule.next_due,
            "runs": schedule.runs.select_related("job", "requested_by"),
            "may_skip": names_newest(schedule),
            "may_manage": may(
                self.actor, Action.JOB_CREATE, kind="job", department=schedule.department.slug
            ),
        }


class SchedulePause(SchedulePage):
    """Pause a schedule."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        schedule_pause(actor=self.actor, schedule_id=id)
        return self.done("The schedule is paused.", "portal:schedule", id=id)


class ScheduleResume(SchedulePage):
    """Resume a schedule; its jobs then run as this person."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        schedule_resume(actor=self.actor, schedule_id=id)
        return self.done("The schedule is active. Its jobs run as you.", "portal:schedule", id=id)


class ScheduleRun(SchedulePage):
    """Start the schedule's job now, as this person."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        job = schedule_run(actor=self.actor, schedule_id=id)
        return redirect("portal:job", id=job.pk)


class ScheduleDelete(SchedulePage):
    """Delete a schedule."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        schedule_delete(actor=self.actor, schedule_id=id)
        return self.done("The schedule is deleted. Its jobs stay.", "portal:schedules")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A request to repeat: its fixed parts, the model whose versions it uses, and the form's
    initial values."""

    kind: Literal["evaluation", "fine_tune"]
    model: Model
    versions_of: Model
    title: str
    request: dict[str, Any]
    initial: dict[str, Any]
    row_kind: str = ""


class ScheduleNew(ActionScreen):
    """The form for a schedule: evaluations of `?version=` or of the newest version of `?model=`, or
    the request of `?job=`."""

    template_name = "portal/form.html"

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not {"version", "model", "job"} & request.GET.keys():
            return redirect("portal:schedules")
        return super().get(request, *args, **kwargs)

    def pattern(self) -> Pattern:
        """Return the request to repeat.

        Raises:
            NotFound: it does not exist, or the person may not see it.
            InvalidInput: such a job cannot be scheduled.
        """
        query = self.request.GET
        if "job" in query:
            return _of_job(self.actor, job_get(actor=self.actor, job_id=query["job"]))
        if "model" in query:
            model = model_get(actor=self.actor, name=query["model"])
            return _of_evaluations(model, f"Evaluate {model.name}", f"model:{model.name}")
        version = version_get(actor=self.actor, id=number_in(query, "version") or 0)
        return _of_evaluations(version.model, f"Evaluate {version}", f"version:{version.pk}")

    def form(self, pattern: Pattern) -> ScheduleForm:
        task = pattern.model.task
        measured = data_choices(self.actor, task)
        tunes = pattern.kind == "fine_tune"
        choices = data_choices(self.actor, task, pattern.row_kind) if pattern.row_kind else measured
        evaluated = get_task(task).evaluation is not None
        return ScheduleForm(
            self.request.POST or None,
            versions=version_choices(self.actor, pattern.versions_of, BASE_KINDS if tunes else ()),
            choices=choices,
            then=(measured if evaluated else []) if tunes else None,
            may_release=may(
                self.actor,
                Action.RELEASE_SUBMIT,
                kind="release",
                department=pattern.model.department.slug,
            ),
            initial=pattern.initial,
        )

    def context(self, **kwargs: Any) -> dict[str, Any]:
        pattern = self.pattern()
        return {
            "form": self.form(pattern),
            "title": f"Schedule: {pattern.title}",
            "lead": "Each job is requested as you, under the policy then in force, until someone "
            "pauses the schedule. A run is skipped while the previous job runs.",
            "submit": "Create the schedule",
            "back": ("portal:schedules", "Schedules"),
        }

    def act(self, **kwargs: Any) -> HttpResponse:
        pattern = self.pattern()
        form = self.form(pattern)
        values = cleaned(form)
        schedule = schedule_create(
            actor=self.actor,
            schedule=parsed(
                NewSchedule,
                {
                    "name": values["name"],
                    "cron": values["cron"],
                    "time_zone": values["time_zone"],
                    "run_unchanged": values["run_unchanged"],
                    pattern.kind: {**pattern.request, **form.request()},
                },
            ),
        )
        return self.done(f"{schedule.name} is scheduled.", "portal:schedule", id=schedule.pk)


def _of_evaluations(model: Model, title: str, version: str) -> Pattern:
    return Pattern("evaluation", model, model, title, {}, {"name": title, "version": version})


def _of_job(actor: Principal, job: Job) -> Pattern:
    if not is_repeatable(job):
        raise InvalidInput(
            f"Jobs such as {job.title!r} cannot be scheduled.",
            hint="Fine-tunes and evaluations can.",
        )
    request = request_of(job)
    key = request.pop("version" if job.kind == JobKind.EVALUATE else "base_version")
    used = version_get(actor=actor, id=key).model
    initial = {
        "name": job.title[:TITLE_MAX],
        "version": f"version:{key}",
        "dataset": f"version:{request.pop('dataset_version')}",
        "max_rows": request.pop("max_rows", None),
    }
    if job.kind == JobKind.EVALUATE:
        return Pattern("evaluation", used, used, job.title, request, initial)
    model = model_get(actor=actor, name=request["model"])
    links = chain_of(job)[1]
    draft = chain_draft_of(job)
    return Pattern(
        "fine_tune",
        model,
        used,
        job.title,
        request,
        {
            **initial,
            "then": f"version:{links[0].dataset_version_id}" if links else "",
            "release": draft.content.get("environment", "") if draft else "",
        },
        row_kind=get_task(model.task).recipe(request["method"]).row_kind,
    )
