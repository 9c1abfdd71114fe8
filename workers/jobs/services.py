"""Services that create, prioritize and cancel jobs; re-exports the services of workers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from governance.audit.services import Attempt, Subject, audit_record
from governance.errors import NotPermitted, QuotaExceeded, WrongState
from governance.people.models import Department
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.engine import Resource
from governance.policy.services import authorize
from governance.principals import Principal
from workers.control.jobs import Claim, HeartbeatReply, LeaseLost, Report
from workers.dispatch import dispatch_job, wake_controller
from workers.jobs.budgets import budget_reserve
from workers.jobs.leases import (
    BACKOFF_FIRST_S,
    job_canceled,
    job_claim,
    job_deliver,
    job_fail,
    job_heartbeat,
    job_report,
)
from workers.jobs.models import Job, JobKind, JobPriority, JobState
from workers.jobs.selectors import job_get
from workers.jobs.states import job_lock, job_move, job_subject

__all__ = [
    "Claim",
    "HeartbeatReply",
    "LeaseLost",
    "Report",
    "job_add",
    "job_cancel",
    "job_canceled",
    "job_claim",
    "job_create",
    "job_deliver",
    "job_fail",
    "job_heartbeat",
    "job_prioritize",
    "job_report",
]


def job_resource(job: Job) -> Resource:
    """Return the job as a resource for policy decisions."""
    return Resource(type="job", id=str(job.pk), name=job.title, department=job.department.slug)


@transaction.atomic
def job_create(
    *,
    actor: Principal,
    kind: JobKind,
    department: Department,
    title: str,
    spec: dict[str, Any],
    priority: JobPriority = JobPriority.NORMAL,
) -> Job:
    """Queue a job for a department, and dispatch it once the transaction commits.

    Raises:
        NotPermitted: the policy denies the job or its high priority, or the actor is not a person.
    """
    decision = authorize(
        actor=actor,
        action=Action.JOB_CREATE,
        resource=Resource(type="job", name=title, department=department.slug),
    )
    if priority == JobPriority.HIGH:
        authorize(
            actor=actor,
            action=Action.JOB_PRIORITIZE,
            resource=Resource(type="job", name=title, department=department.slug),
        )
    return job_add(
        actor=actor,
        kind=kind,
        department=department,
        title=title,
        spec=spec,
        priority=priority,
        decision=decision,
    )


@transaction.atomic
def job_add(
    *,
    actor: Principal,
    kind: JobKind,
    department: Department,
    title: str,
    spec: dict[str, Any],
    priority: JobPriority = JobPriority.NORMAL,
    delivered: dict[str, Any] | None = None,
    decision: Authorization | None = None,
) -> Job:
    """Queue a job without authorization: the caller has authorized the actor for the whole request.

    With `delivered`, its result, the job needs no worker: the controller registers it next.

    Raises:
        NotPermitted: the actor is not a person.
        QuotaExceeded: a budget of the department or the organization has no room left; says which.
        Unavailable: the quota store does not answer.
    """
    if actor.person_id is None:
        raise NotPermitted(
            f"{actor.name} is not a person; a job names the person who answers for it.",
            hint="Sign in, or use a personal access token.",
            attempt=Attempt(
                actor=actor,
                action="job:create",
                subject=Subject(type="job", id="", name=title),
                department=department.slug,
                decision=decision if decision else None,
            ),
        )
    job = Job.objects.create(
        kind=kind,
        priority=priority,
        department=department,
        title=title[:200],
        spec=spec,
        created_by_id=actor.person_id,
        **_initial(delivered),
    )
    try:
        budget_reserve(job)
    except QuotaExceeded as error:
        error.attempt = Attempt(
            actor=actor,
            action="job:create",
            subject=job_subject(job),
            department=department.slug,
            decision=decision if decision else None,
        )
        raise
    audit_record(
        actor=actor,
        action="job:create",
        subject=job_subject(job),
        department=department.slug,
        data={"kind": kind, "spec": spec, "priority": priority.word},
        decision=decision if decision else None,
    )
    if delivered is not None:
        transaction.on_commit(wake_controller)
    elif "provider" not in spec:
        # Egress workers look for their jobs themselves.
        transaction.on_commit(lambda: dispatch_job(job.pk))
    return job


def _initial(delivered: dict[str, Any] | None) -> dict[str, Any]:
    now = timezone.now()
    if delivered is not None:
        return {
            "state": JobState.FINISHING,
            "result": delivered,
            "started_at": now,
            "dispatch_after": now,
            "progress": {"phase": JobState.FINISHING.value},
        }
    return {
        "dispatches": 1,
        "dispatch_after": now + timedelta(seconds=BACKOFF_FIRST_S),
        "progress": {"phase": "queued"},
    }


@transaction.atomic
def job_prioritize(*, actor: Principal, job_id: UUID | str, priority: JobPriority) -> Job:
    """Set the priority of a queued job.

    Raises:
        NotFound: the job does not exist, or the actor may not see it.
        NotPermitted: the policy denies it.
        WrongState: the job is not queued.
    """
    job = job_get(actor=actor, job_id=job_id)
    decision = authorize(actor=actor, action=Action.JOB_PRIORITIZE, resource=job_resource(job))
    job = job_lock(job.pk)
    if job.state != JobState.QUEUED:
        raise WrongState(
            f"Job {job.title!r} is {job.state}; only a queued job has a priority to change."
        )
    before, job.priority = JobPriority(job.priority), priority
    job.save(update_fields=["priority"])
    audit_record(
        actor=actor,
        action=Action.JOB_PRIORITIZE,
        subject=job_subject(job),
        department=job.department.slug,
        data={"before": before.word, "after": priority.word},
        decision=decision,
    )
    return job


@transaction.atomic
def job_cancel(*, actor: Principal, job_id: UUID | str) -> Job:
    """Cancel a queued or paused job now; request the worker of a running one to stop.

    Raises:
        NotFound: the job does not exist, or the actor may not see it.
        NotPermitted: the policy denies it.
        WrongState: the job has delivered its result, or is over.
    """
    job = job_get(actor=actor, job_id=job_id)
    decision = authorize(actor=actor, action=Action.JOB_CANCEL, resource=job_resource(job))
    job = job_lock(job.pk)
    if job.state in (JobState.QUEUED, JobState.PAUSED):
        paused = job.state == JobState.PAUSED
        return job_move(
            job_id=job.pk,
            to=JobState.CANCELED,
            actor=actor,
            reason="Canceled while it was paused." if paused else "Canceled before it ran.",
            decision=decision,
            cancel_requested=True,
        )
    if job.state != JobState.RUNNING:
        raise WrongState(f"Job {job.title!r} is {job.state}; it cannot be canceled.")
    if not job.cancel_requested:
        job.cancel_requested = True
        job.save(update_fields=["cancel_requested"])
        audit_record(
            actor=actor,
            action="job:cancel",
            subject=job_subject(job),
            reason="The worker was asked to stop.",
            department=job.department.slug,
            decision=decision,
        )
    return job
