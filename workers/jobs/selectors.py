"""Reads of jobs, as far as the actor may see them."""

from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet

from governance.errors import NotFound
from governance.permissions import Action
from governance.policy.selectors import visible_to
from governance.principals import Principal
from workers.jobs.models import Job, JobEvent


def jobs_visible_to(actor: Principal) -> QuerySet[Job]:
    """Jobs that the actor may see, newest first."""
    jobs = Job.objects.select_related("department", "created_by")
    return visible_to(actor, Action.JOB_VIEW, jobs, resource_type="job")


def job_get(*, actor: Principal, job_id: UUID | str) -> Job:
    """One job.

    Raises:
        NotFound: it does not exist, or the actor may not see it.
    """
    try:
        wanted = UUID(str(job_id))
    except ValueError as error:
        raise NotFound(f"There is no job {str(job_id)[:60]!r}.") from error
    found = jobs_visible_to(actor).filter(pk=wanted).first()
    if found is None:
        raise NotFound(f"There is no job {wanted}.")
    return found


def job_events(job: Job, after: int = 0) -> QuerySet[JobEvent]:
    """The job's log lines and curve points with an id over `after`, oldest first."""
    return job.events.filter(pk__gt=after).order_by("pk")
