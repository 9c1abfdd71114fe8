"""Budgets of jobs: reserved when the job is queued, charged for its actual use at its end.

The hold is created in the job's transaction, and ended in the transaction of the job's end, so both
always agree. Then the use is recorded like that of requests: in the counters, on the stream, in the
ledger. `holds_settle` sends uses that a crash left behind; a use that is sent twice counts once.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils import timezone

from governance.errors import QuotaExceeded, Unavailable
from governance.quotas import store
from governance.quotas.kinds import KINDS, amount_words, subjects_of
from governance.quotas.models import BudgetHold, HoldState
from governance.quotas.prices import Tariff
from governance.quotas.selectors import quota_limits, tariff_for, tariffs
from governance.quotas.wire import Amount, Limit, stop_sentence
from governance.usage.ledger import ledger_lock
from governance.usage.records import JOBS, MOST_TOKENS, UsageEntry
from governance.usage.sealing import has_usage_key

logger = logging.getLogger(__name__)
# The reservation is the longest time of this many recent, successful jobs of the same kind and
# department; failed or canceled jobs may have ended early.
REMEMBERED = 20
# The use of an ended job that is not in the ledger after this long is sent again.
RESEND_AFTER = timedelta(seconds=30)
_BATCH = 100
# Keeps a sum of seconds within its column, even if a clock is wrong.
_LONGEST_S = 366 * 86400


@dataclass(frozen=True, slots=True)
class TokensExpected:
    """Highest expected number of tokens of a job at a provider, and the provider's prices."""

    prompt: int
    completion: int
    prices: Tariff

    @property
    def micro(self) -> int:
        """Return their cost."""
        return self.prices.cost(prompt_tokens=self.prompt, completion_tokens=self.completion)


def hold_open(
    *,
    reference: str,
    department: str,
    kind: str,
    devices: int = 1,
    tokens: TokensExpected | None = None,
) -> BudgetHold:
    """Reserve device time, and its price, under all limits of the department and the organization.

    Each second counts once per device. With `tokens`, the job calls a provider instead of using
    devices. Runs in the caller's transaction; after a rollback, the next reconciliation releases
    the reservation.

    Raises:
        QuotaExceeded: a limit has no room; the message names it.
        Unavailable: the quota store does not answer, or is being rebuilt.
    """
    ledger_lock(shared=True)
    price = tariff_for("", tariffs())
    if tokens is None:
        amount = hold_amount(department=department, kind=kind, devices=devices, price=price)
    else:
        devices, price, amount = 0, tokens.prices, Amount(micro=tokens.micro)
    subjects = subjects_of(department=department)
    made_at = _admit(amount, subjects)
    return BudgetHold.objects.create(
        reference=reference,
        department=department,
        kind=kind,
        devices=devices,
        reserved_device_ms=amount.device_ms,
        reserved_micro=amount.micro,
        device_second=price.device_second,
        **({} if tokens is None else _tokens_of(tokens)),
        made_at=made_at,
    )


def _tokens_of(tokens: TokensExpected) -> dict[str, int]:
    return {
        "prompt_price": tokens.prices.prompt,
        "completion_price": tokens.prices.completion,
        "tokens_micro": tokens.micro,
    }


def hold_use(*, reference: str, prompt_tokens: int, completion_tokens: int) -> int:
    """Add tokens to a running job's use; return how much its cost is over the reservation."""
    hold = _locked(reference)
    if hold is None or hold.state != HoldState.OPEN:
        return 0
    hold.prompt_tokens = min(hold.prompt_tokens + prompt_tokens, MOST_TOKENS)
    hold.completion_tokens = min(hold.completion_tokens + completion_tokens, MOST_TOKENS)
    hold.save(update_fields=["prompt_tokens", "completion_tokens"])
    return max(0, _cost(hold, hold.device_ms) - hold.reserved_micro)


def hold_amount(
    *, department: str, kind: str, devices: int = 1, price: Tariff | None = None
) -> Amount:
    """Return the device time, and its price, that a job of this kind reserves until it ends."""
    device_ms = _expected_ms(department, kind) * devices
    price = price or tariff_for("", tariffs())
    return Amount(micro=price.cost(device_ms=device_ms), device_ms=device_ms)


def _admit(amount: Amount, subjects: list[str]) -> datetime:
    """Hold the amount, or raise; return the moment to which it is charged."""
    limits = quota_limits(subjects)
    try:
        verdict = store.hold(amount, subjects, limits)
    except Unavailable:
        if limits:
            raise
        # Without limits, jobs are queued even without a broker; reconciliation fixes the counters.
        return timezone.now()
    if not verdict.ready:
        raise Unavailable(
            "Budgets are being rebuilt from the ledger; the job was not queued.", retry_after=2
        )
    if (stopped := verdict.stopped) is not None:
        cost = amount.of(stopped.kind)
        raise QuotaExceeded(
            stop_sentence(stopped, verdict.wait_ms, cost, settings.CURRENCY),
            hint=_refusal_hint(amount, stopped),
            retry_after=None if verdict.wait_ms < 0 else verdict.wait_ms / 1000,
        )
    return datetime.fromtimestamp(verdict.at_ms / 1000, tz=UTC)


def _refusal_hint(amount: Amount, stopped: Limit) -> str:
    """Return what the job reserves, what the limit has left, and how to make room."""
    (count,) = store.read_counts([(stopped.subject, stopped.kind)]).counts
    left = count.left_of(stopped.limit * KINDS[stopped.kind].scale)
    reserves = amount_words(stopped.kind, amount.of(stopped.kind), settings.CURRENCY)
    because = (
        f"{amount.device_ms / 1000:,.0f} s of device time, as long as the longest recent one of "
        "its kind"
        if amount.device_ms
        else "the highest expected cost of its tokens at the provider"
    )
    return (
        f"The job reserves {reserves} until it ends ({because}); "
        f"{amount_words(stopped.kind, left, settings.CURRENCY)} are left. "
        "Wait for running jobs to end, or request a higher quota."
    )


def _expected_ms(department: str, kind: str) -> int:
    """Return the expected device time of one device, in ms."""
    recent = BudgetHold.objects.filter(
        department=department, kind=kind, device_ms__gt=0, outcome="ok"
    )
    times = recent.order_by("-id").values_list("device_ms", "devices")[:REMEMBERED]
    return max((ms // devices for ms, devices in times), default=settings.JOB_RESERVE_S * 1000)


def hold_run(*, reference: str) -> None:
    """Start the clock for a new attempt; if an attempt was taken over, add its time until now."""
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
    """Stop the clock at the end of an attempt that does not end the job."""
    hold = _locked(reference)
    if hold is not None and hold.state == HoldState.OPEN:
        _stop_clock(hold)
        hold.save(update_fields=["device_ms", "running_since"])


def hold_end(*, reference: str, outcome: str) -> None:
    """End the hold with the job: charge its use and release the rest of the reservation."""
    hold = _locked(reference)
    if hold is None or hold.state != HoldState.OPEN:
        return
    hold.ended_at = _stop_clock(hold)
    hold.state, hold.outcome = HoldState.ENDED, outcome[:40]
    hold.save(update_fields=["device_ms", "running_since", "state", "outcome", "ended_at"])
    transaction.on_commit(lambda: _send_now(hold))


def hold_lower(*, reference: str) -> None:
    """Release the unused part of a paused job's reservation.

    Runs in the caller's transaction, which keeps the job paused.

    Raises:
        Unavailable: the quota store does not answer.
    """
    ledger_lock(shared=True)
    hold = _locked(reference)
    if hold is None or hold.state != HoldState.OPEN or hold.running_since is not None:
        return
    device_ms = min(hold.reserved_device_ms, hold.device_ms)
    micro = min(hold.reserved_micro, _cost(hold, device_ms))
    rest = Amount(micro=hold.reserved_micro - micro, device_ms=hold.reserved_device_ms - device_ms)
    # If this transaction is rolled back, the next reconciliation reserves it again.
    store.lower(rest, hold.made_at, subjects_of(department=hold.department))
    hold.reserved_device_ms, hold.reserved_micro = device_ms, micro
    hold.save(update_fields=["reserved_device_ms", "reserved_micro"])


def hold_raise(*, reference: str) -> None:
    """Restore the reservation of a job that is resumed; in the caller's transaction.

    In a later month the whole hold moves to that month, including its use so far.

    Raises:
        QuotaExceeded: a limit has no room; the message names it.
        Unavailable: the quota store does not answer, or is being rebuilt.
    """
    ledger_lock(shared=True)
    hold = _locked(reference)
    if hold is None or hold.state != HoldState.OPEN:
        return
    expected = _expected_ms(hold.department, hold.kind) * hold.devices
    device_ms = max(hold.device_ms, expected, hold.reserved_device_ms)
    micro = max(hold.reserved_micro, _cost(hold, device_ms) + hold.tokens_micro)
    reserved = Amount(micro=hold.reserved_micro, device_ms=hold.reserved_device_ms)
    subjects = subjects_of(department=hold.department)
    if _month(hold.made_at) == _month(timezone.now()):
        _admit(
            Amount(micro=micro - reserved.micro, device_ms=device_ms - reserved.device_ms), subjects
        )
    else:
        made_at = _admit(Amount(micro=micro, device_ms=device_ms), subjects)
        # Without a broker nothing is lost: limits do not read the counters of past months.
        with contextlib.suppress(Unavailable):
            store.lower(reserved, hold.made_at, subjects)
        hold.made_at = made_at
    hold.reserved_device_ms, hold.reserved_micro = device_ms, micro
    hold.save(update_fields=["reserved_device_ms", "reserved_micro", "made_at"])


def _month(moment: datetime) -> tuple[int, int]:
    """Return year and month in UTC, as used by the counters."""
    moment = moment.astimezone(UTC)
    return moment.year, moment.month


def _cost(hold: BudgetHold, device_ms: int) -> int:
    """Return the cost of device time and of the tokens used so far."""
    price = Tariff(hold.prompt_price, hold.completion_price, hold.device_second)
    return price.cost(
        prompt_tokens=hold.prompt_tokens,
        completion_tokens=hold.completion_tokens,
        device_ms=device_ms,
    )


def _locked(reference: str) -> BudgetHold | None:
    return BudgetHold.objects.select_for_update().filter(reference=reference).first()


def _stop_clock(hold: BudgetHold) -> datetime:
    """Add the running time and return the present time, by the database's clock, because those of
    workers and controllers differ."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        now: datetime = cursor.fetchone()[0]
    if hold.running_since is not None:
        seconds = (now - hold.running_since).total_seconds()
        hold.device_ms += hold.devices * round(1000 * min(max(seconds, 0), _LONGEST_S))
        hold.running_since = None
    return now


def holds_settle() -> int:
    """Send the uses of ended jobs that are overdue in the ledger again; return their number.

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
    if not has_usage_key():
        return  # On a compute worker, the controller settles with `holds_settle`.
    try:
        _send(hold)
    except Unavailable as error:
        logger.warning("The use of %s will be settled later: %s", hold.reference, error.message)


def _send(hold: BudgetHold) -> None:
    entry = UsageEntry(
        request_id=hold.reference,
        occurred_at=hold.made_at.timestamp(),
        outcome=hold.outcome,
        endpoint=f"{JOBS}{hold.kind}",
        department=hold.department,
        total_ms=min(hold.device_ms, 2**31 - 1),
        device_ms=hold.device_ms,
        prompt_tokens=hold.prompt_tokens,
        completion_tokens=hold.completion_tokens,
        cost_micro=_cost(hold, hold.device_ms),
        ran=hold.device_ms + hold.prompt_tokens + hold.completion_tokens > 0,
    )
    store.settle(
        entry, reserved=Amount(micro=hold.reserved_micro, device_ms=hold.reserved_device_ms)
    )
