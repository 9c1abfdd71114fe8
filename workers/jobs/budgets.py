"""Jobs draw on their department's budgets: device time, and what it costs.

The account is the platform's, whoever moves the job: whom the policy lets act on the jobs of
another department may not see what that department uses.
"""

from __future__ import annotations

from governance.quotas.holds import hold_end, hold_open, hold_pause, hold_run, hold_wait
from governance.rowsecurity import lifted
from workers.jobs.models import Job, JobKind, JobState
from workers.jobs.resources import resources_of

# Checking a delivery protects the platform itself, so no department pays for it.
CHARGED = frozenset({JobKind.FINE_TUNE, JobKind.EVALUATE, JobKind.INDEX})
OVER = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.DEAD})


def reference_of(job: Job) -> str:
    """The job as the ledger names it."""
    return f"job_{job.pk.hex}"


def budget_reserve(job: Job) -> None:
    """Reserve budget for a job that is being queued.

    Raises:
        QuotaExceeded: a limit of the department or the organisation has no room.
        Unavailable: the quota store does not answer.
    """
    if job.kind in CHARGED:
        with lifted():
            hold_open(
                reference=reference_of(job),
                department=job.department.slug,
                kind=job.kind,
                devices=resources_of(job).processes,
            )


def budget_follow(job: Job, *, before: JobState) -> None:
    """After each change of its state, in the transaction of that change."""
    if job.kind not in CHARGED:
        return
    reference, now = reference_of(job), JobState(job.state)
    with lifted():
        if now is JobState.RUNNING:
            hold_run(reference=reference)
        elif now in OVER:
            hold_end(reference=reference, outcome=_outcome(now))
        elif before is JobState.RUNNING:
            hold_pause(reference=reference)


def budget_clock(job: Job, *, works: bool) -> None:
    """Start the clock of a running attempt that has its machines; one that waits used nothing."""
    if job.kind not in CHARGED:
        return
    with lifted():
        if works:
            hold_run(reference=reference_of(job))
        else:
            hold_wait(reference=reference_of(job))


def _outcome(state: JobState) -> str:
    """In the ledger's words."""
    if state is JobState.SUCCEEDED:
        return "ok"
    return "cancelled" if state is JobState.CANCELLED else "failed"
