"""Budgets of work that lasts: reserved when it is queued, charged for what it used at its end.

The row is written in the transaction of the job, and the job's end in the transaction of that end,
so that neither is known without the other. From there the use travels like every other one: into
the counters, onto the stream, into the ledger. `holds_settle` sends what a crash left behind; doing
so twice counts once.
"""

from __future__ import annotations

import contextlib
import logging
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils import timezone

from governance.errors import QuotaExceeded, Unavailable
from governance.quotas import store
from governance.quotas.kinds import subjects_of
from governance.quotas.models import BudgetHold, HoldState
from governance.quotas.prices import Tariff
from governance.quotas.selectors import quota_limits, tariff_for, tariffs
from governance.quotas.wire import Amount, stop_sentence
from governance.usage.ledger import ledger_lock
from governance.usage.records import JOBS, UsageEntry
from governance.usage.sealing import usage_key_held

logger = logging.getLogger(__name__)
# Of the last so many of a kind in a department that ended well the longest says what the next one
# reserves; those that broke or were canceled may have ended early.
REMEMBERED = 20
# An end that is not in the ledger after this long is sent again.
RESEND_AFTER = timedelta(seconds=30)
_BATCH = 100
# Keeps a sum of seconds within its column whatever clocks say.
_LONGEST_S = 366 * 86400


def hold_open(*, reference: str, department: str, kind: str, devices: int = 1) -> BudgetHold:
    """Reserve device time, and its price, under every limit of the department and the organization.

    Each second of the work counts once for each of its devices.

    Runs in the caller's transaction; if that is rolled back, the next reconciliation gives it back.

    Raises:
        QuotaExceeded: a limit has no room; says which.
        Unavailable: the quota store does not answer, or is being rebuilt.
    """
    ledger_lock(shared=True)
    price = tariff_for("", tariffs())
    device_ms = _expected_ms(department, kind) * devices
    amount = Amount(micro=price.cost(device_ms=device_ms), device_ms=device_ms)
    subjects = subjects_of(department=department)
    made_at = _admit(amount, subjects)
    return BudgetHold.objects.create(
        reference=reference,
        department=department,
        kind=kind,
        devices=devices,
        reserved_device_ms=device_ms,
        reserved_micro=amount.micro,
        device_second=price.device_second,
        made_at=made_at,
    )


def _admit(amount: Amount, subjects: list[str]) -> datetime:
    """Hold it, or refuse; returns the moment it is charged to."""
    limits = quota_limits(subjects)
    try:
        verdict = store.hold(amount, subjects, limits)
    except Unavailable:
        if limits:
            raise
        # Nothing to decide: work is queued without a broker too, and the counters are put right.
        return timezone.now()
    if not verdict.ready:
        raise Unavailable(
            "Budgets are being rebuilt from the ledger, so nothing is queued.", retry_after=2
        )
    if (stopped := verdict.stopped) is not None:
        cost = amount.of(stopped.kind)
        raise QuotaExceeded(
            stop_sentence(stopped, verdict.wait_ms, cost, settings.CURRENCY),
            hint=f"The job reserves {amount.device_ms / 1000:,.0f} s of device time until it ends.",
            retry_after=None if verdict.wait_ms < 0 else verdict.wait_ms / 1000,
        )
    return datetime.fromtimestamp(verdict.at_ms / 1000, tz=UTC)


def _expected_ms(department: str, kind: str) -> int:
    """Return the device time of one of its devices, in ms."""
    recent = BudgetHold.objects.filter(
        department=department, kind=kind, device_ms__gt=0, outcome="ok"
    )
    lasted = recent.order_by("-id").values_list("device_ms", "devices")[:REMEMBERED]
    return max((ms // devices for ms, devices in lasted), default=settings.JOB_RESERVE_S * 1000)


def hold_run(*, reference: str) -> None:
    """An attempt has begun; one that was taken over has lasted until now."""
    hold = _locked(reference)
    if hold is not None and hold.state == HoldState.OPEN:
        hold.running_since = _stop_clock(hold)
        hold.save(update_fields=["device_ms", "running_since"])


def hold_wait(*, reference: str) -> None:
    """Stop the clock and discard the time since `hold_run`: the attempt only waited."""
    hold = _locked(reference)
    if hold is not None and hold.state == HoldState.OPEN:
        hold.running_since = None
        hold.save(update_fields=["running_since"])


def hold_pause(*, reference: str) -> None:
    """The attempt is over, the work is not."""
    hold = _locked(reference)
    if hold is not None and hold.state == HoldState.OPEN:
        _stop_clock(hold)
        hold.save(update_fields=["device_ms", "running_since"])


def hold_end(*, reference: str, outcome: str) -> None:
    """The work is over: what it used is charged, what it held beyond that is given back."""
    hold = _locked(reference)
    if hold is None or hold.state != HoldState.OPEN:
        return
    hold.ended_at = _stop_clock(hold)
    hold.state, hold.outcome = HoldState.ENDED, outcome[:40]
    hold.save(update_fields=["device_ms", "running_since", "state", "outcome", "ended_at"])
    transaction.on_commit(lambda: _send_now(hold))


def hold_lower(*, reference: str) -> None:
    """Give back what the paused work reserves beyond what it used; in the transaction of a caller
    that holds the work paused.

    Raises:
        Unavailable: the quota store does not answer.
    """
    ledger_lock(shared=True)
    hold = _locked(reference)
    if hold is None or hold.state != HoldState.OPEN or hold.running_since is not None:
        return
    device_ms = min(hold.reserved_device_ms, hold.device_ms)
    micro = min(hold.reserved_micro, _price(hold).cost(device_ms=device_ms))
    back = Amount(micro=hold.reserved_micro - micro, device_ms=hold.reserved_device_ms - device_ms)
    # If this transaction is rolled back, the next reconciliation takes it again.
    store.lower(back, hold.made_at, subjects_of(department=hold.department))
    hold.reserved_device_ms, hold.reserved_micro = device_ms, micro
    hold.save(update_fields=["reserved_device_ms", "reserved_micro"])


def hold_raise(*, reference: str) -> None:
    """Reserve again, as much as such work takes, for work that goes on; in the caller's
    transaction.

    In a later month all of it moves to that month: what it used, too, is charged there.

    Raises:
        QuotaExceeded: a limit has no room; says which.
        Unavailable: the quota store does not answer, or is being rebuilt.
    """
    ledger_lock(shared=True)
    hold = _locked(reference)
    if hold is None or hold.state != HoldState.OPEN:
        return
    expected = _expected_ms(hold.department, hold.kind) * hold.devices
    device_ms = max(hold.device_ms, expected, hold.reserved_device_ms)
    micro = max(hold.reserved_micro, _price(hold).cost(device_ms=device_ms))
    held = Amount(micro=hold.reserved_micro, device_ms=hold.reserved_device_ms)
    subjects = subjects_of(department=hold.department)
    if _month(hold.made_at) == _month(timezone.now()):
        _admit(Amount(micro=micro - held.micro, device_ms=device_ms - held.device_ms), subjects)
    else:
        made_at = _admit(Amount(micro=micro, device_ms=device_ms), subjects)
        # Without a broker nothing is lost: no limit reads the counters of a month that is over.
        with contextlib.suppress(Unavailable):
            store.lower(held, hold.made_at, subjects)
        hold.made_at = made_at
    hold.reserved_device_ms, hold.reserved_micro = device_ms, micro
    hold.save(update_fields=["reserved_device_ms", "reserved_micro", "made_at"])


def _month(moment: datetime) -> tuple[int, int]:
    """Return year and month in UTC, by which the counters go."""
    moment = moment.astimezone(UTC)
    return moment.year, moment.month


def _price(hold: BudgetHold) -> Tariff:
    return Tariff(device_second=hold.device_second)


def _locked(reference: str) -> BudgetHold | None:
    return BudgetHold.objects.select_for_update().filter(reference=reference).first()


def _stop_clock(hold: BudgetHold) -> datetime:
    """Add what has run, and say what time it is: by the database's clock, for those of workers and
    controllers differ."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        now: datetime = cursor.fetchone()[0]
    if hold.running_since is not None:
        seconds = (now - hold.running_since).total_seconds()
        hold.device_ms += hold.devices * round(1000 * min(max(seconds, 0), _LONGEST_S))
        hold.running_since = None
    return now


def holds_settle() -> int:
    """Send every end that has not reached the ledger in a while; returns how many.

    Raises:
        Unavailable: the quota store does not answer.
    """
    late = BudgetHold.objects.filter(
        state=HoldState.ENDED, ended_at__lt=Now() - RESEND_AFTER
    ).order_by("id")
    sent = list(late[:_BATCH])
    for hold in sent:
        _send(hold)
    return len(sent)


def _send_now(hold: BudgetHold) -> None:
    if not usage_key_held():
        return  # A compute worker: the controller settles, with `holds_settle`.
    try:
        _send(hold)
    except Unavailable as error:
        logger.warning("What %s used is settled later: %s", hold.reference, error.message)


def _send(hold: BudgetHold) -> None:
    price = _price(hold)
    entry = UsageEntry(
        request_id=hold.reference,
        occurred_at=hold.made_at.timestamp(),
        outcome=hold.outcome,
        endpoint=f"{JOBS}{hold.kind}",
        department=hold.department,
        total_ms=min(hold.device_ms, 2**31 - 1),
        device_ms=hold.device_ms,
        cost_micro=price.cost(device_ms=hold.device_ms),
        ran=hold.device_ms > 0,
    )
    store.settle(entry, held=Amount(micro=hold.reserved_micro, device_ms=hold.reserved_device_ms))
