"""Comparison of the counters with the ledger, and repair of counters that differ or were lost.

For all subjects, in the current day and month:

    counter = sum of the ledger's records + entries on the stream that are not recorded yet
    held    = reservations of jobs that are not settled

The comparison locks the ledger (`ledger_lock`) and reads counters and stream in one transaction of
Redis, so it is exact even while requests run. A repair adds the difference, so uses that are
counted at the same time are not lost.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
from django.db import connection, transaction
from django.db.models import Case, F, Q, QuerySet, Sum, When

from governance.errors import Unavailable
from governance.keys.models import ApiKey
from governance.quotas.kinds import ORGANIZATION, subjects_of
from governance.quotas.models import BudgetHold, HoldState
from governance.quotas.store import client
from governance.quotas.wire import PREFIX, READY_KEY, entry_subjects
from governance.usage.ledger import ledger_lock
from governance.usage.models import UsageRecord, UsageTotal
from governance.usage.records import USAGE_STREAM, UsageEntry
from governance.usage.units import Unit

logger = logging.getLogger(__name__)
# With more entries on the stream, the collector must catch up before a comparison.
STREAM_MOST = 50_000
PATIENCE_MS = 10_000
_KEEP_S = {"day": 3 * 86400, "month": 40 * 86400}
_FIELDS = {
    "day": tuple(Unit),
    "month": (*Unit, "money", "device", "money_held", "device_held"),
}

# Kinds of daily sums, by the kind of subject that they count for.
_SUBJECTS = {
    UsageTotal.By.ALL.value: "department",
    UsageTotal.By.KEY.value: "key",
    UsageTotal.By.DEPLOYMENT.value: "deployment",
}

Slot = tuple[str, str, str]  # window, subject, field
Spans = Mapping[str, tuple[datetime, datetime]]  # by window, its beginning and its end


@dataclass(frozen=True, slots=True)
class Drift:
    """A counter that differs from the ledger, in counted units."""

    window: str
    subject: str
    field: str
    expected: int
    actual: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a comparison. `was_ready` is False after a flush, which loses all counters."""

    checked: int
    drifts: list[Drift]
    repaired: bool
    was_ready: bool


def counters_ready() -> bool:
    """Return whether the counters of days and months exist; without them budgets deny everything.

    Raises:
        Unavailable: Redis does not answer.
    """
    try:
        return bool(client().exists(READY_KEY))
    except (redis.RedisError, OSError) as error:
        raise Unavailable("The quota store does not answer.", retry_after=2) from error


def store_run() -> str:
    """Return the ID of the current run of Redis, which may have older data after a restart.

    Raises:
        Unavailable: Redis does not answer.
    """
    try:
        server: Any = client().info("server")
    except (redis.RedisError, OSError) as error:
        raise Unavailable("The quota store does not answer.", retry_after=2) from error
    return str(server.get("run_id", ""))


def quotas_reconcile(*, repair: bool) -> Outcome:
    """Compare all counters of this day and month with the ledger; with `repair`, correct them.

    Raises:
        Unavailable: Redis does not answer, or too many entries wait for the ledger.
        django.db.Error: PostgreSQL does not answer, or the ledger was locked for 10 s.
    """
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('lock_timeout', %s, true)", [str(PATIENCE_MS)])
            ledger_lock(shared=False)
            return _reconcile(repair)
    except (redis.RedisError, OSError) as error:
        raise Unavailable("The quota store does not answer.", retry_after=2) from error


def _reconcile(repair: bool) -> Outcome:
    store = client()
    if store.xlen(USAGE_STREAM) > STREAM_MOST:
        raise Unavailable(
            f"More than {STREAM_MOST:,} entries wait for the ledger; nothing was compared.",
            hint="Is the controller running? It writes them to the ledger.",
            retry_after=30,
        )
    seconds, _ = _server_time(store)
    now = datetime.fromtimestamp(seconds, tz=UTC)
    dates = {"day": f"{now:%Y-%m-%d}", "month": f"{now:%Y-%m}"}
    spans = _spans(now)
    expected = _recorded(spans) + _held(spans)
    subjects = _counted(store, dates) | {(window, subject) for window, subject, _ in expected}
    ready, actual, pending = _snapshot(store, dates, sorted(subjects))
    expected += _on_stream(pending, spans)
    drifts = [
        Drift(*slot, expected=expected[slot], actual=actual[slot])
        for slot in sorted(set(expected) | set(actual))
        if slot[:2] in subjects and expected[slot] != actual[slot]
    ]
    if repair:
        _repair(store, dates, drifts, ready)
    if drifts and ready:
        logger.warning("Counters differed from the ledger (repaired: %s): %s", repair, drifts[:20])
    return Outcome(len(subjects), drifts, repair, ready)


def _server_time(store: redis.Redis) -> tuple[int, int]:
    answer: Any = store.time()
    return int(answer[0]), int(answer[1])


def _spans(now: datetime) -> Spans:
    """Return the whole day and month around `now`; a charging process's clock may be ahead."""
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    month = day.replace(day=1)
    next_month = (month + timedelta(days=32)).replace(day=1)
    return {"day": (day, day + timedelta(days=1)), "month": (month, next_month)}


def _recorded(spans: Spans) -> Counter[Slot]:
    """Return the ledger's sums by subject and unit, from its daily sums."""
    sums: Counter[Slot] = Counter()
    successors = ApiKey.objects.filter(root__isnull=False)
    root_of = dict(successors.values_list("public_id", "root__public_id"))
    (day, day_ends), (month, month_ends) = spans["day"], spans["month"]
    rows = (
        UsageTotal.objects.filter(
            step=UsageTotal.Step.DAY,
            by__in=_SUBJECTS,
            at__gte=month,
            at__lt=month_ends,
        )
        .order_by()
        .values_list(
            "by",
            Case(When(by=UsageTotal.By.ALL, then=F("department")), default=F("name")),
            "unit",
        )
        .annotate(
            today=Sum("units", filter=Q(at__gte=day, at__lt=day_ends), default=0),
            month=Sum("units"),
            micro=Sum("cost_micro"),
            device=Sum("device_ms"),
        )
    )
    for by, name, unit, today, this_month, micro, device_ms in rows:
        name = root_of.get(name, name) if by == UsageTotal.By.KEY else name
        subjects = [subjects_of(**{_SUBJECTS[by]: name})[-1]] if name else []
        if by == UsageTotal.By.ALL:
            subjects.append(ORGANIZATION)
        _add(sums, subjects, {"money": int(micro), "device": int(device_ms)})
        _add(sums, subjects, {unit: int(today)}, windows=("day",))
        _add(sums, subjects, {unit: int(this_month)}, windows=("month",))
    return sums


def _add(
    sums: Counter[Slot],
    subjects: Iterable[str],
    amounts: Mapping[str, int],
    windows: Iterable[str] = tuple(_FIELDS),
) -> None:
    """Add amounts to the counters of these windows that have such a field."""
    for subject in subjects:
        for window in windows:
            for field in _FIELDS[window]:
                if amount := amounts.get(field, 0):
                    sums[window, subject, field] += amount


def _held(spans: Spans) -> Counter[Slot]:
    """Return the amounts that jobs hold; `_on_stream` subtracts those with an entry there."""
    sums: Counter[Slot] = Counter()
    for row in _unsettled(spans):
        amounts = {"money_held": row.reserved_micro, "device_held": row.reserved_device_ms}
        _add(sums, subjects_of(department=row.department), amounts)
    return sums


def _unsettled(spans: Spans) -> QuerySet[BudgetHold]:
    begins, ends = spans["month"]
    return BudgetHold.objects.exclude(state=HoldState.SETTLED).filter(
        made_at__gte=begins, made_at__lt=ends
    )


def _counted(store: redis.Redis, dates: Mapping[str, str]) -> set[tuple[str, str]]:
    """Return window and subject of all existing counters."""
    subjects = set()
    for window, date in dates.items():
        prefix = f"{PREFIX}{window}:{date}:"
        for key in store.scan_iter(match=f"{prefix}*", count=1000):
            subjects.add((window, key.decode().removeprefix(prefix)))
    return subjects


def _snapshot(
    store: redis.Redis, dates: Mapping[str, str], subjects: list[tuple[str, str]]
) -> tuple[bool, Counter[Slot], list[UsageEntry]]:
    """Return readiness, values and pending entries of the counters at one moment."""
    with store.pipeline(transaction=True) as pipeline:
        pipeline.exists(READY_KEY)
        pipeline.xrange(USAGE_STREAM)
        for window, subject in subjects:
            pipeline.hgetall(f"{PREFIX}{window}:{dates[window]}:{subject}")
        ready, stream, *hashes = pipeline.execute()
    counters: Counter[Slot] = Counter()
    for (window, subject), fields in zip(subjects, hashes, strict=True):
        for name, value in fields.items():
            if (field := name.decode()) in _FIELDS[window]:
                counters[window, subject, field] = int(value)
    return bool(ready), counters, list(_entries(stream))


def _entries(stream: Iterable[Any]) -> Iterable[UsageEntry]:
    for _, fields in stream:
        try:
            yield UsageEntry.decode(fields[b"entry"])
        except (ValueError, KeyError):
            continue  # The collector moves it to the dead stream.


def _on_stream(pending: list[UsageEntry], spans: Spans) -> Counter[Slot]:
    """Return the amounts of entries that are not in the ledger yet, minus the holds they end."""
    sums: Counter[Slot] = Counter()
    latest = {entry.request_id: entry for entry in pending}
    records = UsageRecord.objects.filter(request_id__in=list(latest))
    recorded = set(records.values_list("request_id", flat=True))
    jobs = [entry.request_id for entry in latest.values() if entry.is_job]
    holds = {row.reference: row for row in _unsettled(spans).filter(reference__in=jobs)}
    for entry in latest.values():
        at = datetime.fromtimestamp(entry.occurred_at, tz=UTC)
        if row := holds.get(entry.request_id):
            amounts = {"money_held": -row.reserved_micro, "device_held": -row.reserved_device_ms}
            _add(sums, entry_subjects(entry), amounts)
        if not entry.ran or entry.request_id in recorded:
            continue
        used = {"money": entry.cost_micro, "device": entry.device_ms, entry.unit: entry.units}
        windows = [window for window, (begins, ends) in spans.items() if begins <= at < ends]
        _add(sums, entry_subjects(entry), used, windows)
    return sums


def _repair(store: redis.Redis, dates: Mapping[str, str], drifts: list[Drift], ready: bool) -> None:
    with store.pipeline(transaction=True) as pipeline:
        for drift in drifts:
            key = f"{PREFIX}{drift.window}:{dates[drift.window]}:{drift.subject}"
            pipeline.hincrby(key, drift.field, drift.expected - drift.actual)
            pipeline.expire(key, _KEEP_S[drift.window])
        if not ready:
            # Not set if they were ready: after a flush since then, maintenance must rebuild them.
            pipeline.set(READY_KEY, "1")
        pipeline.execute()
