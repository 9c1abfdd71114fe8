"""State machine of a job: the transition table and the only function that applies it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.policy.decisions import Authorization
from governance.principals import Principal, background
from governance.state_machine import StateMachine
from workers.jobs import workspace
from workers.jobs.budgets import budget_follow
from workers.jobs.models import Job, JobEvent, JobState
from workers.run.events import MESSAGE_CHARACTERS

ALLOWED_TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.PAUSED, JobState.CANCELED}),
    # To itself: another worker takes over once the lease has run out.
    JobState.RUNNING: frozenset(
        {
            JobState.RUNNING,
            JobState.QUEUED,
            JobState.PAUSED,
            JobState.FINISHING,
            JobState.FAILED,
            JobState.CANCELED,
            JobState.DEAD,
        }
    ),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.FAILED, JobState.CANCELED}),
    JobState.FINISHING: frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.DEAD}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELED: frozenset(),
    JobState.DEAD: frozenset(),
}
JOB_STATES = StateMachine(
    model=Job,
    noun="job",
    table=ALLOWED_TRANSITIONS,
    hint="create a new job",
    related=("department",),
    label=lambda job: repr(job.title),
)
job_lock = JOB_STATES.locked
TERMINAL = frozenset(state for state, following in ALLOWED_TRANSITIONS.items() if not following)
_VERBS: dict[JobState, str] = {
    JobState.QUEUED: "requeue",
    JobState.RUNNING: "claim",
    JobState.PAUSED: "pause",
    JobState.FINISHING: "deliver",
    JobState.SUCCEEDED: "finish",
    JobState.FAILED: "fail",
    JobState.CANCELED: "cancel",
    JobState.DEAD: "bury",
}
_BAD = frozenset({JobState.FAILED, JobState.DEAD})


def job_subject(job: Job) -> Subject:
    """Return the job as a subject of audit events."""
    return Subject(type="job", id=str(job.pk), name=job.title)


def job_audit(
    job: Job,
    *,
    actor: Principal,
    to: JobState,
    reason: str = "",
    decision: Authorization | None = None,
    verb: str = "",
    **data: Any,
) -> None:
    """Record a transition in its own transaction, as action `verb` (default: that of the state)."""
    with background(f"job-{job.pk}", actor):
        audit_record(
            actor=actor,
            action=f"job:{verb or _VERBS[to]}",
            subject=job_subject(job),
            outcome="failed" if to in _BAD else "allowed",
            reason=reason[:2000],
            department=job.department.slug,
            data={"kind": job.kind, "attempt": job.attempt, "fence": job.fence, **data},
            decision=decision,
        )


@transaction.atomic
def job_move(
    *,
    job_id: UUID | str,
    to: JobState,
    actor: Principal,
    reason: str = "",
    decision: Authorization | None = None,
    verb: str = "",
    **changes: Any,
) -> Job:
    """Lock the job, re-check its state, set `to` and `changes`, and audit.

    `verb` overrides the action that the event has for the state. The working folder of a terminal
    job is removed after the commit; checkpoints of a failed job are kept for a week, for a retry.

    Raises:
        WrongState: the job cannot move from its state to `to`.
    """
    job = job_lock(job_id)
    changes = {**_columns(to), **changes}
    for name, value in changes.items():
        setattr(job, name, value)
    # Only these columns: a worker's database role may not write the request or its department.
    before = JOB_STATES.save_state(job, to, list(changes))
    budget_follow(job, before=before)
    job_audit(job, actor=actor, to=to, reason=reason, decision=decision, verb=verb)
    if before == JobState.RUNNING and to not in (JobState.RUNNING, JobState.FINISHING):
        attempt_ended(job, reason)
    if to in TERMINAL:
        keep = to in _BAD and bool(job.checkpoints)
        transaction.on_commit(lambda: workspace.discard(job.pk, keep_checkpoints=keep))
    return job


def attempt_ended(job: Job, reason: str, *, attempt: int = 0) -> None:
    """Log why an attempt of the job ended; `attempt` defaults to the current one."""
    line = f"Attempt {attempt or job.attempt} ended. {reason}"
    JobEvent.objects.create(
        job=job, attempt=attempt or job.attempt, message=line[:MESSAGE_CHARACTERS]
    )


def _columns(to: JobState) -> dict[str, Any]:
    """Return the columns that every transition to this state sets."""
    if to is JobState.RUNNING:
        return {}
    now = timezone.now()
    changes: dict[str, Any] = {"lease_until": None, "stop_request": ""}
    if to is JobState.QUEUED:
        changes["queued_at"] = now
    elif to is JobState.PAUSED:
        changes |= {"paused_at": now, "worker": ""}
    elif to in TERMINAL:
        changes["finished_at"] = now
    return changes
