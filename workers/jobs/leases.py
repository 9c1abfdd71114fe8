"""A worker's operations on a job: claim, heartbeat, report, deliver, fail.

Every write names the fence of its claim, so a worker that lost its lease changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now
from django.utils import timezone

from governance.errors import InvalidInput
from governance.principals import Principal, service_principal
from registry.manifests import Manifest
from workers.control.jobs import Cause, Claim, HeartbeatReply, LeaseLost, Report
from workers.control.messages import LINES_MAX
from workers.dispatch import wake_controller
from workers.jobs.budgets import budget_clock, budget_follow
from workers.jobs.line import Bound, first_claim
from workers.jobs.models import AttemptLog, Job, JobEvent, JobState, StopRequest
from workers.jobs.states import attempt_ended, job_audit, job_lock, job_move
from workers.run.events import MESSAGE_CHARACTERS
from workers.run.outcome import SENTENCE_CHARACTERS, UNREQUESTED, result_checked
from workers.run.storable import cleaned

EVENTS_PER_JOB = 5_000
BACKOFF_FIRST_S = 5
BACKOFF_LONGEST_S = 60
# Pauses after an attempt whose machine lacked a resource, and how many such attempts do not count
# as failed (about two hours of retries).
LACKING_FIRST_S, LACKING_LONGEST_S, LACKING_MOST = 30, 900, 12


def backoff_s(tries: int) -> int:
    """Return the pause before the next try: 5 s, doubled with every try, at most 60 s."""
    return int(min(BACKOFF_LONGEST_S, BACKOFF_FIRST_S * 2 ** min(max(tries, 0), 10)))


def worker_principal() -> Principal:
    """Return the principal of compute workers."""
    return service_principal("compute-worker")


def job_claim(*, job_id: UUID | str, worker: str, bound: Bound | None = None) -> Claim | None:
    """Claim the first job in line with one UPDATE; return None if no job is claimable.

    `job_id` comes from the message that woke the worker. The claimed job may be another one: shares
    of departments, priority and age decide (`workers.jobs.line`).

    Raises:
        ValueError: `job_id` is not a UUID, so the platform did not send the message.
        WrongState: the bound is reached.
    """
    UUID(str(job_id))
    return job_claim_first(worker=worker, bound=bound)


def job_claim_first(
    *, worker: str, bound: Bound | None = None, egress: bool = False
) -> Claim | None:
    """Claim the first job in line; return None if no job is claimable. An egress worker claims only
    jobs that call providers, and other workers none of these.

    Raises:
        WrongState: the bound is reached.
    """
    with transaction.atomic():
        row = first_claim(worker=worker, bound=bound, egress=egress)
        if row is None:
            return None
        taken, _, attempt, _, _, silent = row
        job = job_lock(taken)
        budget_follow(job, before=JobState.QUEUED)
        job_audit(job, actor=worker_principal(), to=JobState.RUNNING, worker=worker)
        if silent:
            reason = f"The lease of {silent} ran out; {worker} takes over."
            attempt_ended(job, reason, attempt=attempt - 1)
    return claim_of(job)


def claim_of(job: Job) -> Claim:
    """Return the claim of the worker that holds a running job."""
    return Claim(
        job_id=job.pk,
        fence=job.fence,
        attempt=job.attempt,
        kind=job.kind,
        title=job.title,
        worker=job.worker,
        lease_s=float(settings.JOB_LEASE_S),
    )


def job_heartbeat(claim: Claim) -> HeartbeatReply:
    """Renew the lease by `ASSAY_JOB_LEASE_S`; `alive` is False if the lease is lost for good."""
    with transaction.atomic():
        renewed = Job.objects.filter(
            pk=claim.job_id, fence=claim.fence, state=JobState.RUNNING
        ).update(lease_until=Now() + timedelta(seconds=settings.JOB_LEASE_S))
        if not renewed:
            return HeartbeatReply(alive=False, cancel_requested=False)
        requests = Job.objects.values("cancel_requested", "stop_request").get(pk=claim.job_id)
    return _reply(**requests)


def _reply(*, cancel_requested: bool, stop_request: str) -> HeartbeatReply:
    return HeartbeatReply(
        alive=True, cancel_requested=cancel_requested, pause_requested=bool(stop_request)
    )


def job_report(claim: Claim, *, reports: Sequence[Report], phase: str = "") -> HeartbeatReply:
    """Append to the job's log and curves, and update its progress.

    A job keeps its first 5,000 entries; later reports only update the progress.

    Raises:
        LeaseLost: the claim no longer holds; nothing was written.
    """
    with transaction.atomic():
        job = held(claim)
        room = EVENTS_PER_JOB - job.events.count()
        JobEvent.objects.bulk_create(
            JobEvent(
                job=job,
                attempt=claim.attempt,
                step=report.step,
                message=cleaned(report.message)[:MESSAGE_CHARACTERS],
                data=report.values,
            )
            for report in reports[: max(0, room)]
        )
        progress = dict(job.progress)
        for report in reports:
            if report.step is not None:
                progress["step"] = report.step
            if report.total is not None:
                progress["total"] = report.total
        if phase:
            progress["phase"] = phase
        Job.objects.filter(pk=job.pk).update(progress=progress)
    return _reply(cancel_requested=job.cancel_requested, stop_request=job.stop_request)


def job_working(claim: Claim, *, works: bool) -> None:
    """Start the clock of the attempt's device time, or stop it and discard the time since its
    claim, in which it only waited for machines.

    Raises:
        LeaseLost: the claim no longer holds; nothing was written.
    """
    with transaction.atomic():
        budget_clock(held(claim), works=works)


def job_checkpoint(
    claim: Claim, *, name: str, manifest: Mapping[str, Any], remaining: Collection[str]
) -> None:
    """Record a checkpoint's manifest; drop manifests of checkpoints that are not in `remaining`.

    Raises:
        LeaseLost: the claim no longer holds; nothing was written.
    """
    with transaction.atomic():
        job = held(claim)
        kept = {old: entry for old, entry in job.checkpoints.items() if old in remaining}
        Job.objects.filter(pk=job.pk).update(checkpoints={**kept, name: dict(manifest)})


def job_deliver(claim: Claim, result: dict[str, Any]) -> JobState:
    """Hand the result to the control plane; cancel the job instead if a person requested that.

    A pending pause request is ignored, since the work is done.

    Raises:
        InvalidInput: the result is malformed, or too large; nothing was written.
        LeaseLost: the claim no longer holds; nothing was written.
    """
    with transaction.atomic():
        job = held(claim)
        if job.cancel_requested:
            return job_canceled(claim)
        job_move(
            job_id=claim.job_id,
            to=JobState.FINISHING,
            actor=worker_principal(),
            result=_checked(claim, result),
            dispatches=0,
            dispatch_after=timezone.now(),
            progress={**job.progress, "phase": "registering"},
        )
        transaction.on_commit(wake_controller)
    return JobState.FINISHING


def _checked(claim: Claim, result: dict[str, Any]) -> dict[str, Any]:
    """Return a worker's result in the form that the row stores. Raises InvalidInput."""
    checked = {
        **result_checked(claim.kind, result),
        "fence": claim.fence,
        "attempt": claim.attempt,
    }
    size = Manifest.from_json(checked["manifest"]).size_bytes if "manifest" in checked else 0
    if size > settings.JOB_OUTPUT_MAX_BYTES:
        raise InvalidInput(
            f"The run wrote {size:,} bytes; a job may deliver {settings.JOB_OUTPUT_MAX_BYTES:,}.",
            hint="Raise ASSAY_JOB_OUTPUT_MAX_BYTES.",
        )
    return checked


def job_canceled(claim: Claim) -> JobState:
    """Cancel the job, whose worker stopped on request. Without a request the attempt failed.

    Raises:
        LeaseLost: the claim no longer holds; nothing was written.
    """
    with transaction.atomic():
        if not held(claim).cancel_requested:
            return job_fail(claim, UNREQUESTED, retry=True)
        job_move(
            job_id=claim.job_id,
            to=JobState.CANCELED,
            actor=worker_principal(),
            reason="The worker stopped, as requested.",
        )
    return JobState.CANCELED


def job_paused(claim: Claim) -> JobState:
    """Pause or requeue a job whose run stopped after a checkpoint, on request.

    The attempt counts as failed only if there was no request.

    Raises:
        LeaseLost: the claim no longer holds; nothing was written.
    """
    with transaction.atomic():
        job = held(claim)
        if job.cancel_requested:
            return job_canceled(claim)
        if not job.stop_request:
            return job_fail(claim, UNREQUESTED, retry=True)
        to = _after_stop(job)
        changes: dict[str, Any] = {
            "interruptions": job.interruptions + 1,
            "dispatches": 0,
            "dispatch_after": timezone.now(),
            "progress": {**job.progress, "phase": to.value},
        }
        job_move(
            job_id=claim.job_id,
            to=to,
            actor=worker_principal(),
            reason=job.stop_reason,
            **changes,
        )
        transaction.on_commit(wake_controller)
    return to


def job_fail(
    claim: Claim, error: str, *, retry: bool, cause: Cause = Cause.WORK, lines: str = ""
) -> JobState:
    """Record a failed attempt. With `retry` the job is queued again until its attempts are used up
    (`dead`), or paused if a person requested that.

    Up to `LACKING_MOST` attempts whose machine lacked a resource do not count as failed. Without
    `retry` the job is `failed` if its work is the cause, and `dead` for any other cause. `lines`
    are the last lines that its run printed, for its department.

    Raises:
        LeaseLost: the claim no longer holds; nothing was written.
    """
    error = cleaned(error)
    with transaction.atomic():
        job = held(claim)
        changes: dict[str, Any] = {"error": error[:SENTENCE_CHARACTERS]}
        wait_s = backoff_s(job.tries - 1)
        if retry and cause is Cause.MACHINE and job.attempt <= LACKING_MOST:
            job.interruptions += 1
            changes["interruptions"] = job.interruptions
            wait_s = min(LACKING_LONGEST_S, LACKING_FIRST_S * 2 ** (job.attempt - 1))
        if retry:
            to = after_attempt(job)
        else:
            to = JobState.FAILED if cause is Cause.WORK else JobState.DEAD
        if to is JobState.QUEUED:
            wait = timedelta(seconds=wait_s)
            changes |= {"dispatches": 0, "dispatch_after": timezone.now() + wait}
        if lines := cleaned(lines)[-LINES_MAX:]:
            # A log that another worker stored for this attempt must not prevent the transition.
            log = AttemptLog(job=job, attempt=job.attempt, lines=lines)
            AttemptLog.objects.bulk_create([log], ignore_conflicts=True)
        job_move(job_id=claim.job_id, to=to, actor=worker_principal(), reason=error, **changes)
        transaction.on_commit(wake_controller)
    return to


def after_attempt(job: Job) -> JobState:
    """Return the next state of a running job whose attempt ended without a result."""
    if job.cancel_requested:
        return JobState.CANCELED
    if not attempts_left(job):
        return JobState.DEAD
    return _after_stop(job)


def _after_stop(job: Job) -> JobState:
    """Return the next state of a job that has attempts left."""
    return JobState.PAUSED if job.stop_request == StopRequest.PAUSE else JobState.QUEUED


def attempts_left(job: Job) -> bool:
    """Return whether another attempt may follow the current one."""
    return job.tries < settings.JOB_MAX_ATTEMPTS


def held(claim: Claim) -> Job:
    """Return the claimed job, locked. Raises LeaseLost if the claim no longer holds."""
    job = (
        Job.objects.select_for_update(of=("self",))
        .filter(pk=claim.job_id, fence=claim.fence, state=JobState.RUNNING)
        .first()
    )
    if job is None:
        raise LeaseLost(
            f"Job {claim.title!r} is no longer held by {claim.worker} (fence {claim.fence}); "
            "nothing was written."
        )
    return job
