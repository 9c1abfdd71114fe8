"""Work on the compute plane."""

from __future__ import annotations

from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import MAX_IDENTIFIER, Choice, Line, StrictSerializer
from assay.api.representations.workers import (
    JobAnswer,
    JobDetailAnswer,
    JobEventAnswer,
    JobEventsAnswer,
)
from governance.bounds import DEPARTMENT_MAX
from workers.jobs.models import PRIORITIES, JobKind, JobPriority, JobState
from workers.jobs.selectors import job_events, job_get, jobs_visible_to
from workers.jobs.services import job_cancel, job_prioritize


class JobQuery(StrictSerializer):
    """Filters of the list."""

    state = Choice(choices=JobState.choices, required=False)
    kind = Choice(choices=JobKind.choices, required=False)
    department = Line(max_length=DEPARTMENT_MAX, required=False)


class JobsView(Endpoint):
    """Jobs, newest first."""

    ordering = ("-created_at", "-id")

    @operation("Jobs", "List jobs", query=JobQuery, answer=JobAnswer, paged=True)
    def get(self, request: Request) -> Response:
        given = self.query(JobQuery)
        rows = jobs_visible_to(self.actor)
        if "department" in given:
            rows = rows.filter(department__slug=given.pop("department"))
        return self.page(rows.filter(**given), JobAnswer)


class JobView(Endpoint):
    """One job."""

    @operation("Jobs", "One job, its progress and why it waits", answer=JobDetailAnswer)
    def get(self, request: Request, job_id: UUID) -> Response:
        self.query()
        return self.answer(job_get(actor=self.actor, job_id=job_id), JobDetailAnswer)


class JobEventsQuery(StrictSerializer):
    """Position to continue from."""

    after = serializers.IntegerField(min_value=0, max_value=MAX_IDENTIFIER, required=False)
    limit = serializers.IntegerField(min_value=1, max_value=1000, required=False)


class JobEventsView(Endpoint):
    """A job's log and curves."""

    @operation(
        "Jobs", "A job's log and curves, in order", query=JobEventsQuery, answer=JobEventsAnswer
    )
    def get(self, request: Request, job_id: UUID) -> Response:
        given = self.query(JobEventsQuery)
        after = given.get("after", 0)
        job = job_get(actor=self.actor, job_id=job_id)
        events = list(job_events(job, after)[: given.get("limit", 200)])
        return Response(
            {
                "results": self.rendered(events, JobEventAnswer),
                "last": events[-1].pk if events else after,
                "state": job.state,
            }
        )


class JobCancelView(Endpoint):
    """Ask a job to end."""

    @operation("Jobs", "Cancel a job", answer=JobAnswer)
    def post(self, request: Request, job_id: UUID) -> Response:
        self.nothing()
        return self.answer(job_cancel(actor=self.actor, job_id=job_id), JobAnswer)


class JobPriorityBody(StrictSerializer):
    """A new priority."""

    priority = Choice(choices=PRIORITIES)


class JobPriorityView(Endpoint):
    """Priority of a queued job."""

    @operation("Jobs", "Change a job's priority", body=JobPriorityBody, answer=JobDetailAnswer)
    def post(self, request: Request, job_id: UUID) -> Response:
        priority = JobPriority.named(self.body(JobPriorityBody)["priority"])
        job = job_prioritize(actor=self.actor, job_id=job_id, priority=priority)
        return self.answer(job, JobDetailAnswer)
