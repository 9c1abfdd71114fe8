"""Read jobs that the actor may see, and the backlog of the platform."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import redis
from django.conf import settings
from django.db.models import Count, Min, QuerySet
from django.utils import timezone

from governance.errors import NotFound
from governance.permissions import Action
from governance.policy.selectors import visible_to
from governance.principals import Principal
from governance.usage.records import USAGE_STREAM
from workers.jobs.models import AttemptLog, Job, JobEvent, JobState

WAITING = (JobState.QUEUED, JobState.RUNNING, JobState.FINISHING)


def jobs_visible_to(actor: Principal) -> QuerySet[Job]:
    """Return the jobs that the actor may see, newest first."""
    jobs = Job.objects.select_related("department", "created_by")
    return visible_to(actor, Action.JOB_VIEW, jobs, resource_type="job")


def job_get(*, actor: Principal, job_id: UUID | str) -> Job:
    """Return one job.

    Raises:
        NotFound: the job does not exist, or the actor may not see it.
    """
    try:
        key = UUID(str(job_id))
    except ValueError as error:
        raise NotFound(f"There is no job {str(job_id)[:60]!r}.") from error
    job = jobs_visible_to(actor).filter(pk=key).first()
    if job is None:
        raise NotFound(f"There is no job {key}.")
    return job


def job_events(job: Job, after: int = 0) -> QuerySet[JobEvent]:
    """Return log lines and curve points whose ID is greater than `after`, oldest first."""
    return job.events.filter(pk__gt=after).order_by("pk")


def job_seconds_left(job: Job) -> float | None:
    """Return the expected remaining seconds of a running job, by the speed of its attempt; None
    before its second step."""
    step, total = job.progress.get("step") or 0, job.progress.get("total") or 0
    if job.state != JobState.RUNNING or not 0 < step < total:
        return None
    first = job.events.filter(attempt=job.attempt, step__gt=0).order_by("pk").first()
    if first is None or first.step is None or first.step >= step:
        return None
    elapsed = (timezone.now() - first.at).total_seconds()
    return elapsed / (step - first.step) * (total - step)


def attempt_logs(*, actor: Principal, job: Job) -> QuerySet[AttemptLog]:
    """Return the logs of failed attempts of a job that the actor sees, oldest first.

    They may contain training data, so actors outside the job's department get none.
    """
    if job.department.slug not in actor.departments:
        return AttemptLog.objects.none()
    return AttemptLog.objects.filter(job=job).order_by("attempt")


@dataclass(frozen=True, slots=True)
class Backlog:
    """Waiting work. `jobs`: (state, count, creation of oldest); `usage`: None without a broker."""

    jobs: list[tuple[str, int, datetime]]
    usage: int | None


@functools.cache
def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)


def backlog() -> Backlog:
    """Return the waiting work of the whole platform, for people who may see all of it."""
    rows = (
        Job.objects.filter(state__in=WAITING)
        .order_by()
        .values("state")
        .annotate(many=Count("pk"), oldest=Min("created_at"))
    )
    by_state = {row["state"]: row for row in rows}
    jobs = [
        (state.label, by_state[state]["many"], by_state[state]["oldest"])
        for state in WAITING
        if state in by_state
    ]
    try:
        usage: int | None = int(_client(settings.REDIS_URL).xlen(USAGE_STREAM))
    except redis.RedisError:
        usage = None
    return Backlog(jobs, usage)
