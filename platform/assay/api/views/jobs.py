"""Work on the compute plane."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from django.db.models import QuerySet
from pydantic import Field

from assay.api.representations.workers import (
    AttemptLogAnswer,
    JobAnswer,
    JobDetailAnswer,
    JobEventsAnswer,
)
from assay.api.routes import Routes
from governance.principals import Principal
from governance.schemas import Filter
from workers.jobs.models import AttemptLog, Job, JobPriority
from workers.jobs.pausing import job_pause, job_resume
from workers.jobs.reruns import job_clone, job_retry
from workers.jobs.schemas import JobChanges, JobFilter, JobPriorityChange
from workers.jobs.selectors import attempt_logs, job_events, job_get, jobs_visible_to
from workers.jobs.services import job_cancel, job_prioritize

routes = Routes("Jobs", JobDetailAnswer)


@routes.list("jobs", "List jobs", answer=JobAnswer, order=("-created_at", "-id"))
def list_jobs(actor: Principal, query: JobFilter) -> QuerySet[Job]:
    return query.applied(jobs_visible_to(actor))


@routes.get("jobs/<uuid:job_id>", "One job, its progress and the reason why it waits")
def show(actor: Principal, job_id: UUID) -> Job:
    return job_get(actor=actor, job_id=job_id)


class JobEventsQuery(Filter):
    """Position to continue from."""

    after: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    limit: Annotated[int, Field(ge=1, le=1000)] = 200


@routes.get("jobs/<uuid:job_id>/events", "A job's log and curves, in order", answer=JobEventsAnswer)
def events(actor: Principal, job_id: UUID, query: JobEventsQuery) -> dict[str, Any]:
    job = job_get(actor=actor, job_id=job_id)
    rows = list(job_events(job, query.after)[: query.limit])
    return {"results": rows, "last": rows[-1].pk if rows else query.after, "state": job.state}


@routes.list(
    "jobs/<uuid:job_id>/attempts",
    "Last lines and tracebacks of a job's failed attempts, for its department",
    answer=AttemptLogAnswer,
    order=(),
)
def attempts(actor: Principal, job_id: UUID) -> QuerySet[AttemptLog]:
    return attempt_logs(actor=actor, job=job_get(actor=actor, job_id=job_id))


@routes.post("jobs/<uuid:job_id>/cancel", "Cancel a job", answer=JobAnswer)
def cancel(actor: Principal, job_id: UUID) -> Job:
    return job_cancel(actor=actor, job_id=job_id)


@routes.post("jobs/<uuid:job_id>/pause", "Pause a job")
def pause(actor: Principal, job_id: UUID) -> Job:
    return job_pause(actor=actor, job_id=job_id)


@routes.post("jobs/<uuid:job_id>/resume", "Resume a paused job")
def resume(actor: Principal, job_id: UUID) -> Job:
    return job_resume(actor=actor, job_id=job_id)


@routes.post("jobs/<uuid:job_id>/priority", "Change a job's priority")
def prioritize(actor: Principal, job_id: UUID, body: JobPriorityChange) -> Job:
    return job_prioritize(actor=actor, job_id=job_id, priority=JobPriority.named(body.priority))


@routes.create("jobs/<uuid:job_id>/retry", "Retry a failed job")
def retry(actor: Principal, job_id: UUID) -> Job:
    return job_retry(actor=actor, job_id=job_id)


@routes.create("jobs/<uuid:job_id>/clone", "Clone a job with changes")
def clone(actor: Principal, job_id: UUID, body: JobChanges) -> Job:
    return job_clone(
        actor=actor, job_id=job_id, changes=body.model_dump(exclude_unset=True, exclude_none=True)
    )
