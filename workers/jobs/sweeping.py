"""The controller's work on jobs every second, which repairs losses of the broker or of workers."""

from __future__ import annotations

import logging
from datetime import timedelta
from itertools import takewhile
from typing import Any

from django.db import transaction
from django.db.models import Value
from django.utils import timezone

from governance.errors import Unavailable
from governance.principals import service_principal
from registry.intake.models import Intake, IntakeState
from registry.intake.probes import intakes_probe
from workers.dispatch import dispatch_job, messages_waiting
from workers.jobs import workspace
from workers.jobs.budgets import budgets_lower
from workers.jobs.finishing import intakes_settle, jobs_finish_due
from workers.jobs.leases import after_attempt, backoff_s
from workers.jobs.line import full_departments
from workers.jobs.models import (
    AttemptLog,
    ChainDraft,
    ChainDraftState,
    ChainLink,
    ChainState,
    Job,
    JobState,
)
from workers.jobs.preemption import job_preempt_due
from workers.jobs.states import TERMINAL, job_move

logger = logging.getLogger(__name__)
BATCH = 100
# Messages only wake workers, so more messages than workers are useless.
MESSAGES_WAITING = 100
_UNDECIDED = (IntakeState.QUARANTINED, IntakeState.CHECKING, IntakeState.PROBING)
_CONTROLLER = service_principal("controller")


def work_folders_expire() -> int:
    """Remove folders of jobs that ended more than `RETENTION_DAYS` ago, and attempt logs of that
    age; return the number of folders.

    A folder that a retry continues from is kept until the retry has begun.
    """
    late = timezone.now() - timedelta(days=workspace.RETENTION_DAYS)
    AttemptLog.objects.filter(at__lt=late).delete()
    needed = Job.objects.filter(
        state__in=(JobState.QUEUED, JobState.PAUSED), continues__isnull=False
    )
    ended = Job.objects.filter(finished_at__lt=late, pk__in=workspace.folders()).exclude(
        pk__in=needed.values("continues")
    )
    keys = list(ended.values_list("pk", flat=True))
    for key in keys:
        workspace.discard(key)
    return len(keys)


def work_waits() -> bool:
    """Return true if a job is not over, a step waits for one, or an intake is not decided."""
    jobs, *others = (
        rows.order_by().values_list(Value(1))[:1]
        for rows in (
            Job.objects.filter(state__in=[state for state in JobState if state not in TERMINAL]),
            ChainLink.objects.filter(state=ChainState.WAITING),
            ChainDraft.objects.filter(state=ChainDraftState.WAITING),
            Intake.objects.filter(state__in=_UNDECIDED),
        )
    )
    return bool(jobs.union(*others, all=True))


def job_sweep() -> int:
    """Take back jobs with expired leases, dispatch due ones, finish delivered ones, and preempt one
    if the first in line has waited for too long.

    Returns:
        The number of jobs that changed.
    """
    acted = _take_back_expired() + _dispatch_due() + jobs_finish_due()
    intakes_settle()
    intakes_probe()
    try:
        acted += budgets_lower()
    except Unavailable as error:
        logger.warning("Paused jobs hold their budgets for now: %s", error.message)
    return acted + (job_preempt_due() is not None)


def _take_back_expired() -> int:
    with transaction.atomic():
        expired = list(
            Job.objects.select_for_update(skip_locked=True, of=("self",)).filter(
                state=JobState.RUNNING, lease_until__lt=timezone.now()
            )[:BATCH]
        )
        for job in expired:
            to = after_attempt(job)
            reason = f"The lease of {job.worker} ran out in attempt {job.attempt}."
            changes: dict[str, Any] = {
                "error": reason,
                "dispatches": 0,
                "dispatch_after": timezone.now(),
            }
            if to is JobState.CANCELED:
                changes["error"] = ""
            logger.warning("Job %s: %s Now %s.", job.pk, reason, to.value)
            job_move(job_id=job.pk, to=to, actor=_CONTROLLER, reason=reason, **changes)
    return len(expired)


def _dispatch_due() -> int:
    """Send messages for queued jobs whose department has room, while few messages wait.

    A job of a full department stays due: its message is sent once another job ends.
    """
    now = timezone.now()
    with transaction.atomic():
        due = list(
            Job.objects.select_for_update(skip_locked=True)
            .filter(state=JobState.QUEUED, dispatch_after__lte=now)
            # Egress workers look for their jobs themselves.
            .exclude(spec__has_key="provider")
            .exclude(department__in=full_departments())
            .order_by("-priority", "created_at")[: max(0, MESSAGES_WAITING - messages_waiting())]
        )
        for job in due:
            job.dispatch_after = now + timedelta(seconds=backoff_s(job.dispatches))
            job.dispatches += 1
        Job.objects.bulk_update(due, ["dispatch_after", "dispatches"])
    # If the broker is unreachable, the first call logs it; the rest come due again.
    return sum(1 for _ in takewhile(lambda job: dispatch_job(job.pk), due))
