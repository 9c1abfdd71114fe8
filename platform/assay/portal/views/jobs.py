"""Jobs: the list, one with its live curve and log, canceling, pausing, running again."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.text import capfirst

from assay.portal.access import may
from assay.portal.http import ActionScreen, Screen, number_in
from assay.portal.job_requests import request_rows, setting_rows
from assay.portal.lists import Field, ListScreen, states
from assay.portal.series import curve_points, curves
from governance.database.narrow import narrowed
from governance.errors import InvalidInput
from governance.permissions import Action
from governance.retention.models import Growing
from governance.retention.months import month_of
from governance.retention.selectors import dropped_months
from registry.evaluations.selectors import evaluations_visible_to
from registry.intake.selectors import intakes_visible_to
from registry.releases.drafts.selectors import release_drafts_visible_to
from registry.versions.selectors import versions_visible_to
from workers.control.jobs import WARNING
from workers.jobs.chains import chain_draft_of, chain_of
from workers.jobs.comparison import COMPARABLE
from workers.jobs.line import job_waits
from workers.jobs.models import Job, JobKind, JobPriority, JobState, StopRequest
from workers.jobs.pausing import after_stop, job_pause, job_resume, pause_question
from workers.jobs.reruns import is_repeatable, job_retry
from workers.jobs.schemas import JobFilter
from workers.jobs.selectors import (
    attempt_logs,
    job_events,
    job_get,
    job_seconds_left,
    jobs_visible_to,
)
from workers.jobs.services import job_cancel, job_prioritize
from workers.jobs.states import TERMINAL
from workers.jobs.workspace import RETENTION_DAYS
from workers.schedules.models import Schedule
from workers.schedules.selectors import schedules_visible_to

EVENTS_SHOWN = 5000


def is_live(job: Job) -> bool:
    return job.state not in TERMINAL


def log_exported(job: Job) -> bool:
    """Return whether the month in which the job was created was exported and dropped."""
    return bool(dropped_months(Growing.JOB_EVENTS, {month_of(job.created_at)}))


class Jobs(ListScreen):
    """Every job the person may see."""

    template_name = "portal/jobs/list.html"
    title = "Jobs"
    lead = "Fine-tunes, evaluations, checks of intakes and indexes of knowledge bases."
    columns = "□ | Job | State | Progress | Department | Took | Created"
    filters = JobFilter
    toolbar = (
        states(JobState.choices),
        Field("kind", "Kind", [(kind.value, capfirst(kind.label)) for kind in JobKind]),
    )

    def rows(self) -> QuerySet[Job]:
        return jobs_visible_to(self.actor)

    def context(self, **kwargs: Any) -> dict[str, Any]:
        return {**super().context(**kwargs), "comparable": COMPARABLE}


class JobPage(Screen):
    """One job with its log, curves, chain and result."""

    template_name = "portal/jobs/job.html"

    def context(self, *, id: UUID, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        job = job_get(actor=self.actor, job_id=id)
        events = list(job_events(job)[:EVENTS_SHOWN])
        first, links = chain_of(job)
        return {
            "job": job,
            "live": is_live(job),
            "events": [event for event in events if event.message],
            "warnings": [
                *job.spec.get("warnings", []),
                *(event.message for event in events if event.data.get(WARNING)),
            ],
            "after": events[-1].pk if events else 0,
            "log_exported": not events and log_exported(job),
            "seconds_left": job_seconds_left(job),
            "request_rows": request_rows(job),
            "setting_rows": setting_rows(job),
            "follows": True,
            "curves": curves(events),
            "result": result_of(self, job),
            "waits": job_waits(job),
            "schedule": schedule_of(self, job),
            "chain_first": first,
            "chain": links,
            **self.chain_end(first),
            "priorities": self.priorities(job),
            "attempt_logs": attempt_logs(actor=self.actor, job=job),
            "lines_kept_days": RETENTION_DAYS,
            **self.reruns(job),
            **self.stops(job),
        }

    def stops(self, job: Job) -> dict[str, Any]:
        """Return why the job was asked to stop, and this person's ways to stop or resume it."""
        if not is_live(job):
            return {}
        stop = {
            "stop_reason": job.stop_reason,
            "after_stop": after_stop(job),
            "kept_days": RETENTION_DAYS,
        }
        stopped = job.state in (JobState.QUEUED, JobState.PAUSED) and job.stop_reason
        context = stop if job.stop_request or stopped else {}
        department = job.department.slug
        if job.cancel_requested or not may(
            self.actor, Action.JOB_CANCEL, kind="job", department=department
        ):
            return context
        waits_or_runs = job.state in (JobState.QUEUED, JobState.RUNNING)
        return context | {
            "may_cancel": True,
            "may_pause": waits_or_runs and job.stop_request != StopRequest.PAUSE,
            "may_resume": job.state == JobState.PAUSED,
            "pause_question": pause_question(job),
        }

    def chain_end(self, first: Job) -> dict[str, Any]:
        """Return the release draft at the end of the chain, as far as this person may see it."""
        row = chain_draft_of(first)
        if row is None or row.draft_id is None:
            return {"chain_draft": row}
        drafts = release_drafts_visible_to(self.actor)
        return {"chain_draft": row, "draft": drafts.filter(pk=row.draft_id).first()}

    def reruns(self, job: Job) -> dict[str, Any]:
        """Return this person's ways to run the job again."""
        department = job.department.slug
        if not may(self.actor, Action.JOB_CREATE, kind="job", department=department):
            return {}
        if job.kind == JobKind.INTAKE:
            # An intake whose checks failed is rejected, not repeated.
            return {"may_retry": job.state == JobState.DEAD}
        if not is_repeatable(job):
            return {}
        return {
            "may_retry": job.state in (JobState.FAILED, JobState.DEAD),
            "may_clone": job.kind == JobKind.FINE_TUNE,
            "may_schedule": True,
        }

    def priorities(self, job: Job) -> list[tuple[str, str]]:
        """Return the priorities that this person may give the job, with their labels."""
        department = job.department.slug
        if job.state != JobState.QUEUED or not may(
            self.actor, Action.JOB_PRIORITIZE, kind="job", department=department
        ):
            return []
        return [(each.word, str(each.label)) for each in JobPriority]


def schedule_of(screen: Screen, job: Job) -> Schedule | None:
    """Return the schedule that started the job, if the person may see it."""
    return narrowed(schedules_visible_to(screen.actor).filter(runs__job=job), "name").first()


def result_of(screen: Screen, job: Job) -> dict[str, Any]:
    """Return the result of the job, as far as this person may see it."""
    if job.kind == JobKind.EVALUATE:
        evaluations = evaluations_visible_to(screen.actor).filter(job_id=job.pk)
        return {"evaluation": narrowed(evaluations, "version").first()}
    if job.kind == JobKind.INTAKE:
        intakes = intakes_visible_to(screen.actor).filter(job_id=job.pk)
        return {"intake": narrowed(intakes, "pk").first()}
    versions = versions_visible_to(screen.actor).filter(job_id=job.pk)
    return {"version": narrowed(versions, "number", "model__name").first()}


class JobProgress(Screen):
    """Progress bar of a running job; with `?page=job`, also the lead and the details of its page.
    Other pages, such as a knowledge base's, show only the bar."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        job = job_get(actor=self.actor, job_id=kwargs["id"])
        follows = request.GET.get("page") == "job"
        context = {
            "job": job,
            "live": is_live(job),
            "waits": job_waits(job),
            "seconds_left": job_seconds_left(job),
            "follows": follows,
            "schedule": schedule_of(self, job) if follows else None,
        }
        return render(request, "portal/jobs/live.html", context)


class JobEvents(Screen):
    """New log lines and curve points since `?after=`, for the script on the job's page."""

    def get(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        job = job_get(actor=self.actor, job_id=kwargs["id"])
        after = number_in(request.GET, "after") or 0
        lines, names = [], {}
        for event in job_events(job, after)[:EVENTS_SHOWN]:
            points = curve_points(event.data) if event.step is not None else {}
            names.update(points)
            lines.append(
                {
                    "id": event.pk,
                    "at": timezone.localtime(event.at).strftime("%H:%M:%S"),
                    "step": event.step,
                    "message": event.message,
                    "points": points or None,
                }
            )
        return JsonResponse(
            {"live": is_live(job), "state": job.state, "events": lines, "names": names}
        )


class JobCancel(JobPage, ActionScreen):
    """Request that a job stop."""

    def act(self, *, id: UUID, **kwargs: Any) -> HttpResponse:  # noqa: A002
        job_cancel(actor=self.actor, job_id=id)
        return self.done("Stop requested.", "portal:job", id=id)


class JobPause(JobPage, ActionScreen):
    """Pause a job."""

    def act(self, *, id: UUID, **kwargs: Any) -> HttpResponse:  # noqa: A002
        job = job_pause(actor=self.actor, job_id=id)
        paused = job.state == JobState.PAUSED
        sentence = "The job is paused." if paused else "The job writes a checkpoint and stops."
        return self.done(sentence, "portal:job", id=id)


class JobResume(JobPage, ActionScreen):
    """Queue a paused job again."""

    def act(self, *, id: UUID, **kwargs: Any) -> HttpResponse:  # noqa: A002
        job_resume(actor=self.actor, job_id=id)
        return self.done("The job is queued again.", "portal:job", id=id)


class JobPrioritize(JobPage, ActionScreen):
    """Change the priority of a queued job."""

    def act(self, *, id: UUID, **kwargs: Any) -> HttpResponse:  # noqa: A002
        try:
            priority = JobPriority.named(self.request.POST.get("priority", "")[:10])
        except KeyError as error:
            raise InvalidInput(
                "Choose a priority.", fields={"priority": ["is low, normal or high"]}
            ) from error
        job_prioritize(actor=self.actor, job_id=id, priority=priority)
        return self.done(f"The job has {priority.word} priority.", "portal:job", id=id)


class JobRetry(JobPage, ActionScreen):
    """Queue a failed job again."""

    def act(self, *, id: UUID, **kwargs: Any) -> HttpResponse:  # noqa: A002
        job = job_retry(actor=self.actor, job_id=id)
        return self.done("The job is queued again.", "portal:job", id=job.pk)
