"""Pause a job, resume it, and fail one that was paused for too long.

A paused job has no worker, no lease, and no reserved budget beyond its usage. It continues from its
newest checkpoint, or from the beginning if it has none.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from governance.audit.services import Attempt, audit_record
from governance.errors import QuotaExceeded, WrongState
from governance.permissions import Action
from governance.policy.services import authorize
from governance.principals import Principal, service_principal
from workers.dispatch import dispatch_job, wake_controller
from workers.jobs.budgets import budget_raise
from workers.jobs.leases import BACKOFF_FIRST_S
from workers.jobs.models import Job, JobKind, JobState, StopRequest
from workers.jobs.selectors import job_get
from workers.jobs.services import job_resource
from workers.jobs.states import job_lock, job_move, job_subject
from workers.jobs.workspace import RETENTION_DAYS

logger = logging.getLogger(__name__)
EXPIRED = (
    f"It was paused for {RETENTION_DAYS} days, the longest that checkpoints are kept. They were "
    "removed; a retry starts from the beginning."
)
_BATCH = 100
_CONTROLLER = service_principal("controller")


@transaction.atomic
def job_pause(*, actor: Principal, job_id: UUID | str) -> Job:
    """Take a queued job out of the line; make a running one write a checkpoint and stop.

    Raises:
        NotFound: the job does not exist, or the actor may not see it.
        NotPermitted: the policy denies it.
        WrongState: the job is neither queued nor running, or is being canceled.
    """
    job = job_get(actor=actor, job_id=job_id)
    decision = authorize(actor=actor, action=Action.JOB_CANCEL, resource=job_resource(job))
    job = job_lock(job.pk)
    if job.state == JobState.QUEUED:
        transaction.on_commit(wake_controller)
        return job_move(
            job_id=job.pk,
            to=JobState.PAUSED,
            actor=actor,
            reason="Paused while it waited.",
            decision=decision,
            stop_reason="A person paused it while it waited.",
            progress={**job.progress, "phase": JobState.PAUSED.value},
        )
    if job.state != JobState.RUNNING or job.cancel_requested:
        stopping = job.state == JobState.RUNNING
        state = "being canceled" if stopping else job.state
        raise WrongState(
            f"Job {job.title!r} is {state}; it cannot be paused.",
            hint="Queued and running jobs can.",
        )
    if job.stop_request == StopRequest.PAUSE:
        return job
    if not job.stop_request:
        job.yields_to = None
    # A job that is making way still does so, and is then paused.
    job.stop_request = StopRequest.PAUSE
    job.stop_reason = "A person paused it."
    job.save(update_fields=["stop_request", "stop_reason", "yields_to"])
    audit_record(
        actor=actor,
        action="job:pause",
        subject=job_subject(job),
        reason="The worker was asked to write a checkpoint and stop.",
        department=job.department.slug,
        decision=decision,
    )
    return job


@transaction.atomic
def job_resume(*, actor: Principal, job_id: UUID | str) -> Job:
    """Put a paused job back in line, at the place of its priority and age.

    Raises:
        NotFound: the job does not exist, or the actor may not see it.
        NotPermitted: the policy denies it.
        WrongState: the job is not paused.
        QuotaExceeded: a budget has no room for its reservation; the job stays paused.
        Unavailable: the quota store does not answer.
    """
    job = job_get(actor=actor, job_id=job_id)
    decision = authorize(actor=actor, action=Action.JOB_CANCEL, resource=job_resource(job))
    job = job_lock(job.pk)
    if job.state != JobState.PAUSED:
        stopping = job.state == JobState.RUNNING and job.stop_request == StopRequest.PAUSE
        raise WrongState(
            f"Job {job.title!r} is {job.state}; only paused jobs can be resumed.",
            hint="Wait until its worker has stopped." if stopping else "",
        )
    try:
        budget_raise(job)
    except QuotaExceeded as error:
        error.attempt = Attempt(
            actor=actor,
            action="job:resume",
            subject=job_subject(job),
            department=job.department.slug,
            decision=decision,
        )
        raise
    job = job_move(
        job_id=job.pk,
        to=JobState.QUEUED,
        actor=actor,
        decision=decision,
        verb="resume",
        error="",
        stop_reason="",
        paused_at=None,
        dispatches=1,
        dispatch_after=timezone.now() + timedelta(seconds=BACKOFF_FIRST_S),
        progress={**job.progress, "phase": JobState.QUEUED.value},
    )
    transaction.on_commit(lambda: dispatch_job(job.pk))
    return job


def paused_jobs_expire() -> int:
    """Fail jobs paused for `RETENTION_DAYS`, and remove their checkpoints; return the number."""
    late = timezone.now() - timedelta(days=RETENTION_DAYS)
    paused = Job.objects.filter(state=JobState.PAUSED, paused_at__lt=late).order_by("paused_at")
    failed = 0
    for key in list(paused.values_list("pk", flat=True)[:_BATCH]):
        try:
            job_move(
                job_id=key,
                to=JobState.FAILED,
                actor=_CONTROLLER,
                reason=EXPIRED,
                error=EXPIRED,
                checkpoints={},
            )
        except WrongState:
            logger.info("Job %s is no longer paused", key)
        else:
            failed += 1
    return failed


def after_stop(job: Job) -> str:
    """Return a sentence on where the next attempt of a paused or preempted job begins."""
    if job.checkpoints:
        newest = max(job.checkpoints, key=lambda name: int(name.rpartition("-")[2]))
        return f"It goes on from {newest}."
    if job.state == JobState.RUNNING and job.kind == JobKind.FINE_TUNE:
        return "It goes on from the checkpoint that it writes now, if its method writes any."
    return "It has no checkpoint, so it starts from the beginning."


def pause_question(job: Job) -> str:
    """Return the consequences of pausing the job, for the person who requests it."""
    if job.state == JobState.QUEUED:
        text = f"It leaves the line. {after_stop(job)}"
    elif job.kind == JobKind.FINE_TUNE:
        text = "Its run writes a checkpoint and stops. It goes on from its newest checkpoint."
    else:
        text = "Jobs of this kind write no checkpoints. It starts from the beginning once resumed."
    return f"{job.title}: {text} It fails if it is not resumed within {RETENTION_DAYS} days."
