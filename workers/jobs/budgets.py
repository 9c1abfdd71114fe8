"""Charge jobs to the budgets of their department: device time and its cost.

These functions lift row security: a person who may act on another department's jobs does not see
the usage of that department.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction

from governance.quotas.holds import (
    TokensExpected,
    hold_amount,
    hold_end,
    hold_lower,
    hold_open,
    hold_pause,
    hold_raise,
    hold_run,
    hold_use,
    hold_wait,
)
from governance.quotas.kinds import amount_words, subjects_of
from governance.quotas.models import QuotaLimit
from governance.quotas.prices import Tariff
from governance.quotas.selectors import LimitUse, uses_or_unknown
from governance.quotas.wire import Amount
from governance.rowsecurity import lifted
from workers.jobs.models import Job, JobKind, JobState
from workers.jobs.resources import resources_of

# Checking a delivery protects the platform itself, so no department pays for it.
CHARGED = frozenset({JobKind.FINE_TUNE, JobKind.EVALUATE, JobKind.INDEX})
# Kinds of limits that count jobs.
COUNTED = ("money_per_month", "gpu_seconds_per_month")
OVER = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED, JobState.DEAD})
# `reference_of` in SQL, for a row `j`.
REFERENCE = "'job_' || replace(j.id::text, '-', '')"


def reference_of(job: Job) -> str:
    """Return the job's reference in the ledger."""
    return f"job_{job.pk.hex}"


def budget_reserve(job: Job) -> None:
    """Reserve budget for a job that is being queued.

    Raises:
        QuotaExceeded: a quota of the department or the organization has no room left.
        Unavailable: the quota store does not answer.
    """
    if job.kind in CHARGED:
        with lifted():
            hold_open(
                reference=reference_of(job),
                department=job.department.slug,
                kind=job.kind,
                devices=resources_of(job).processes,
                tokens=tokens_expected(job.spec),
            )


def tokens_expected(spec: Mapping[str, Any]) -> TokensExpected | None:
    """Return the tokens that a job may use at a provider; None for a job that calls no provider."""
    tokens = spec.get("tokens")
    if tokens is None:
        return None
    prices = Tariff(tokens["prompt_price"], tokens["completion_price"])
    return TokensExpected(tokens["prompt"], tokens["completion"], prices)


def budget_use(job: Job, *, prompt_tokens: int, completion_tokens: int) -> int:
    """Add tokens to a running job's use; return how much its cost is over the reservation."""
    with lifted():
        return hold_use(
            reference=reference_of(job),
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
        )


@dataclass(frozen=True, slots=True)
class BudgetOutlook:
    """The reservation of a job that is not queued yet, and the limits that must have room."""

    amount: Amount
    limits: list[LimitUse]

    @property
    def words(self) -> str:
        """The reserved device time, and its price if it has one."""
        time = f"{self.amount.device_ms / 1000:,.0f} s of device time"
        if not self.amount.micro:
            return time
        price = amount_words("money_per_month", self.amount.micro, settings.CURRENCY)
        return f"{price}: {time}"

    @property
    def without_room(self) -> list[LimitUse]:
        """Limits that would refuse the job now."""
        return [
            use
            for use in self.limits
            if use.known and not use.row.shadow and self.amount.of(use.row.kind) > use.left
        ]


def budget_outlook(*, department: str, kind: JobKind, devices: int) -> BudgetOutlook:
    """Return what a job of the department would reserve, and the limits it counts under.

    For people who may queue jobs there: a refusal tells them the same.
    """
    subjects = subjects_of(department=department)
    limits = QuotaLimit.objects.select_related("department", "api_key")
    with lifted():
        amount = hold_amount(department=department, kind=kind, devices=devices)
        rows = [row for row in limits.filter(kind__in=COUNTED) if row.subject in subjects]
    return BudgetOutlook(amount, uses_or_unknown(rows))


def budget_follow(job: Job, *, before: JobState) -> None:
    """Update the job's hold after a transition, in the transaction of that transition."""
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
    """Start the clock of an attempt that has its machines; stop it for an attempt that waits."""
    if job.kind not in CHARGED:
        return
    with lifted():
        if works:
            hold_run(reference=reference_of(job))
        else:
            hold_wait(reference=reference_of(job))


# Paused jobs that still reserve budget; the index `jobs_paused` covers only paused jobs.
_LOWERED = f"""
SELECT j.id FROM workers_job j JOIN governance_budgethold h ON h.reference = {REFERENCE}
 WHERE j.state = 'paused' AND h.state = 'open' AND h.reserved_device_ms > h.device_ms
 ORDER BY j.paused_at LIMIT 100
"""  # noqa: S608


def budgets_lower() -> int:
    """Release the unused reservations of paused jobs; return the number of jobs.

    Only the controller can: a worker has no access to the counters.

    Raises:
        Unavailable: the quota store does not answer.
    """
    with lifted():
        with connection.cursor() as cursor:
            cursor.execute(_LOWERED)
            keys = [row[0] for row in cursor.fetchall()]
        return sum(_lower(key) for key in keys)


@transaction.atomic
def _lower(key: UUID) -> bool:
    """Release one job's unused reservation; return False if the job is no longer paused, or is
    locked by a transaction that resumes or cancels it."""
    paused = Job.objects.select_for_update(of=("self",), skip_locked=True, no_key=True)
    job = paused.filter(pk=key, state=JobState.PAUSED).first()
    if job is not None:
        hold_lower(reference=reference_of(job))
    return job is not None


def budget_raise(job: Job) -> None:
    """Reserve budget again for a paused job that returns to the line.

    Raises:
        QuotaExceeded: a quota of the department or the organization has no room left.
        Unavailable: the quota store does not answer.
    """
    with lifted():
        hold_raise(reference=reference_of(job))


def _outcome(state: JobState) -> str:
    """Return the ledger's outcome for a final state."""
    if state is JobState.SUCCEEDED:
        return "ok"
    return "canceled" if state is JobState.CANCELED else "failed"
