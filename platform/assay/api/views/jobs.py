"""Work on the compute plane."""

from __future__ import annotations

from uuid import UUID

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import (
    MAX_IDENTIFIER,
    Choice,
    Identifier,
    Line,
    Object,
    StrictSerializer,
    Whole,
)
from assay.api.idempotency import idempotent
from assay.api.representations.workers import (
    AttemptLogAnswer,
    JobAnswer,
    JobDetailAnswer,
    JobEventAnswer,
    JobEventsAnswer,
)
from assay.api.views.evaluations import ResourcesBody
from governance.bounds import DEPARTMENT_MAX
from registry.datasets.parsing import MAX_ROWS
from workers.jobs.models import PRIORITIES, JobKind, JobPriority, JobState
from workers.jobs.pausing import job_pause, job_resume
from workers.jobs.reruns import job_clone, job_retry
from workers.jobs.selectors import attempt_logs, job_events, job_get, jobs_visible_to
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


class JobAttemptsView(Endpoint):
    """Attempts of a job that failed."""

    @operation(
        "Jobs",
        "Last lines and tracebacks of a job's failed attempts, for its department",
        answer=AttemptLogAnswer(many=True),
    )
    def get(self, request: Request, job_id: UUID) -> Response:
        self.query()
        job = job_get(actor=self.actor, job_id=job_id)
        return Response(self.rendered(attempt_logs(actor=self.actor, job=job), AttemptLogAnswer))


class JobCancelView(Endpoint):
    """Ask a job to end."""

    @operation("Jobs", "Cancel a job", answer=JobAnswer)
    def post(self, request: Request, job_id: UUID) -> Response:
        self.nothing()
        return self.answer(job_cancel(actor=self.actor, job_id=job_id), JobAnswer)


class JobPauseView(Endpoint):
    """A job that goes on later."""

    @operation("Jobs", "Pause a job", answer=JobDetailAnswer)
    def post(self, request: Request, job_id: UUID) -> Response:
        self.nothing()
        return self.answer(job_pause(actor=self.actor, job_id=job_id), JobDetailAnswer)


class JobResumeView(Endpoint):
    """A paused job that goes on."""

    @operation("Jobs", "Resume a paused job", answer=JobDetailAnswer)
    def post(self, request: Request, job_id: UUID) -> Response:
        self.nothing()
        return self.answer(job_resume(actor=self.actor, job_id=job_id), JobDetailAnswer)


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


class JobRetryView(Endpoint):
    """A failed job again."""

    @operation("Jobs", "Retry a failed job", answer=JobDetailAnswer, status=201)
    @idempotent
    def post(self, request: Request, job_id: UUID) -> Response:
        self.nothing()
        job = job_retry(actor=self.actor, job_id=job_id)
        return self.answer(job, JobDetailAnswer, status=201)


class JobCloneBody(StrictSerializer):
    """Fields to change; a fine-tune and an evaluation have those of their requests."""

    base_version = Identifier(required=False)
    version = Identifier(required=False)
    method = Line(max_length=40, required=False)
    dataset_version = Identifier(required=False)
    hyperparameters = Object(required=False)
    resources = ResourcesBody(required=False)
    max_rows = Whole(min_value=1, max_value=MAX_ROWS, required=False)
    priority = Choice(choices=PRIORITIES, required=False)


class JobCloneView(Endpoint):
    """A job again, with changes."""

    @operation(
        "Jobs", "Clone a job with changes", body=JobCloneBody, answer=JobDetailAnswer, status=201
    )
    @idempotent
    def post(self, request: Request, job_id: UUID) -> Response:
        job = job_clone(actor=self.actor, job_id=job_id, changes=self.body(JobCloneBody))
        return self.answer(job, JobDetailAnswer, status=201)
