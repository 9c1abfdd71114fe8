"""The worker's side of a job: claim, heartbeat, report, deliver, fail. Every write says which fence
it holds, so that a worker that lost its lease changes nothing.
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
from workers.dispatch import wake_controller
from workers.jobs.budgets import budget_clock, budget_follow
from workers.jobs.line import Bound, first_claim
from workers.jobs.models import LINES_MAX, AttemptLog, Job, JobEvent, JobState, StopRequest
from workers.jobs.states import attempt_ended, job_audit, job_lock, job_move
from workers.run.events import MESSAGE_CHARACTERS
from workers.run.outcome import SENTENCE_CHARACTERS, UNREQUESTED, result_checked
from workers.run.storable import cleaned

EVENTS_PER_JOB = 5_000
BACKOFF_FIRST_S = 5
BACKOFF_LONGEST_S = 60
# Pauses after an attempt whose machine lacked something, and how many such attempts do not count:
# those of about two hours.
LACKING_FIRST_S, LACKING_LONGEST_S, LACKING_MOST = 30, 900, 12


def backoff_s(tries: int) -> int:
    """5 s, doubled with every try, at most 60 s."""
    return int(min(BACKOFF_LONGEST_S, BACKOFF_FIRST_S * 2 ** min(max(tries, 0), 10)))


def worker_principal() -> Principal:
    """As whom compute workers act."""
    return service_principal("compute-worker")


def job_claim(*, job_id: UUID | str, worker: str, bound: Bound | None = None) -> Claim | None:
    """Take the job that is first in line, by one UPDATE. None: no job is claimable.

    `job_id` is the one that the worker's message names. It only woke the worker: which job is
    claimed is decided now, by the departments' shares, priority and age (`workers.jobs.line`).

    Raises:
        ValueError: `job_id` is malformed; a message with anything else is not the platform's.
        WrongState: the bound is reached.
    """
    UUID(str(job_id))
    with transaction.atomic():
        row = first_claim(worker=worker, bound=bound)
        if row is None:
            return None
        taken, fence, attempt, kind, title, silent = row
        job = job_lock(taken)
        budget_follow(job, before=JobState.QUEUED)
        job_audit(job, actor=worker_principal(), to=JobState.RUNNING, worker=worker)
        if silent:
            reason = f"The lease of {silent} ran out; {worker} takes over."
            attempt_ended(job, reason, attempt=attempt - 1)
    return Claim(
        job_id=job.pk,
        fence=fence,
        attempt=attempt,
        kind=kind,
        title=title,
        worker=worker,
        lease_s=float(settings.JOB_LEASE_S),
    )


def job_heartbeat(claim: Claim) -> HeartbeatReply:
    """Renew the lease by `ASSAY_JOB_LEASE_S`; `alive` is False when it is lost for good."""
    with transaction.atomic():
        renewed = Job.objects.filter(
            pk=claim.job_id, fence=claim.fence, state=JobState.RUNNING
        ).update(lease_until=Now() + timedelta(seconds=settings.JOB_LEASE_S))
        if not renewed:
            return HeartbeatReply(alive=False, cancel_requested=False)
        wanted = Job.objects.values("cancel_requested", "stop_request").get(pk=claim.job_id)
    return _reply(**wanted)


def _reply(*, cancel_requested: bool, stop_request: str) -> HeartbeatReply:
    return HeartbeatReply(
        alive=True, cancel_requested=cancel_requested, pause_requested=bool(stop_request)
    )


def job_report(claim: Claim, *, reports: Sequence[Report], phase: str = "") -> HeartbeatReply:
    """Append to the job's log and curves, and show how far it is.

    A job keeps its first 5,000 entries; further ones only move the progress.

    Raises:
        LeaseLost: the claim no longer holds; nothing was written.
    """
    with transaction.atomic():
        job = _held(claim)
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
    """Start the clock of the attempt's device time now, or stop it and discard the time since its
    claim, in which it only waited for machines.

    Raises:
        LeaseLost: the claim no longer holds; nothing was written.
    """
    with transaction.atomic():
        budget_clock(_held(claim), works=works)


def job_checkpoint(
    claim: Claim, *, name: str, manifest: Mapping[str, Any], there: Collection[str]
) -> None:
    """Record a checkpoint's manifest, and forget those of checkpoints that are no longer `there`.

    Raises:
        LeaseLost: the claim no longer holds; nothing was written.
    """
    with transaction.atomic():
        job = _held(claim)
        kept = {old: found for old, found in job.checkpoints.items() if old in there}
        Job.objects.filter(pk=job.pk).update(checkpoints={**kept, name: dict(manifest)})


def job_deliver(claim: Claim, result: dict[str, Any]) -> JobState:
    """Hand the result to the control plane; a job that was canceled meanwhile has none.

    One that was to pause is over before it could: its result counts.

    Raises:
        InvalidInput: the result is malformed, or too large; nothing was written.
        LeaseLost: the claim no longer holds; nothing was written.
    """
    with transaction.atomic():
        job = _held(claim)
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
    """Return a worker's result as the row keeps it. Raises InvalidInput."""
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
    """The worker has stopped as it was asked to. Without such a request the attempt failed.

    Raises:
        LeaseLost: the claim no longer holds; nothing was written.
    """
    with transaction.atomic():
        if not _held(claim).cancel_requested:
            return job_fail(claim, UNREQUESTED, retry=True)
        job_move(
            job_id=claim.job_id,
            to=JobState.CANCELED,
            actor=worker_principal(),
            reason="The worker stopped, as was asked.",
        )
    return JobState.CANCELED


def job_paused(claim: Claim) -> JobState:
    """The run stopped after a checkpoint, as requested: the job is paused, or back in line.

    The attempt does not count as failed. Without such a request it does.

    Raises:
        LeaseLost: the claim no longer holds; nothing was written.
    """
    with transaction.atomic():
        job = _held(claim)
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
    """The attempt broke. With `retry` it is queued again until its attempts are used up (`dead`),
    or paused where a person requested that.

    An attempt whose machine lacked something counts as no failed one, `LACKING_MOST` times. Without
    `retry` the job has failed if its work is the cause; another cause says nothing about that, so
    that the job is `dead`. `lines` are the last that its run printed, for its department.

    Raises:
        LeaseLost: the claim no longer holds; nothing was written.
    """
    error = cleaned(error)
    with transaction.atomic():
        job = _held(claim)
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
            # Whatever another worker wrote there keeps no job from its end.
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
    """Return whether another attempt may follow the present one of this job."""
    return job.tries < settings.JOB_MAX_ATTEMPTS


def _held(claim: Claim) -> Job:
    held = (
        Job.objects.select_for_update(of=("self",))
        .filter(pk=claim.job_id, fence=claim.fence, state=JobState.RUNNING)
        .first()
    )
    if held is None:
        raise LeaseLost(
            f"Job {claim.title!r} is no longer held by {claim.worker} (fence {claim.fence}); "
            "nothing was written."
        )
    return held
