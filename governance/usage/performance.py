"""Latency, errors and use of one deployment over time.

Short steps are read from the records of the ledger, on the index by deployment and time. Steps of
six hours and more are read from its sums, so that a busy quarter costs as little as a quiet one;
percentiles are then at most 3 % off, and lack answers of the last ten minutes. Each query is
canceled after `LIMIT_MS`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db.models import (
    Aggregate,
    Count,
    DateTimeField,
    F,
    Func,
    IntegerField,
    Max,
    Q,
    QuerySet,
    Sum,
    Value,
)
from django.db.models.functions import Greatest
from django.utils import timezone

from governance.database.statements import statements_within
from governance.errors import Unavailable
from governance.permissions import Action
from governance.policy.selectors import visible_to
from governance.principals import Principal
from governance.usage.models import UsageRecord, UsageTimes, UsageTotal
from governance.usage.records import JOBS
from governance.usage.selectors import usage_visible_to, whole_sum
from governance.usage.units import Unit

LIMIT_MS = 10_000
# Period and precision of `UsageTimes`.
TIMES_STEP = timedelta(hours=6)
_BUCKET_BITS = 5
# A Monday, so that weeks begin on Mondays.
_ORIGIN = datetime(2024, 1, 1, tzinfo=UTC)
_ANSWERED = Q(outcome="ok")


class Span(StrEnum):
    """Period up to now, in steps of equal length."""

    HOUR = "1h"
    DAY = "24h"
    WEEK = "7d"
    MONTH = "30d"
    QUARTER = "12w"

    @property
    def step(self) -> timedelta:
        return _STEPS[self][0]

    @property
    def steps(self) -> int:
        return _STEPS[self][1]


_STEPS: dict[Span, tuple[timedelta, int]] = {
    Span.HOUR: (timedelta(minutes=2), 30),
    Span.DAY: (timedelta(hours=1), 24),
    Span.WEEK: (timedelta(hours=6), 28),
    Span.MONTH: (timedelta(days=1), 30),
    Span.QUARTER: (timedelta(weeks=1), 12),
}


@dataclass(frozen=True, slots=True)
class Window:
    """The steps of a span up to `until`, the end of the current step."""

    since: datetime
    until: datetime
    step: timedelta

    @classmethod
    def of(cls, span: Span, now: datetime | None = None) -> Window:
        """Return the window of a span that ends with the current step."""
        current = ((now or timezone.now()) - _ORIGIN) // span.step
        until = _ORIGIN + (current + 1) * span.step
        return cls(until - span.steps * span.step, until, span.step)

    @property
    def step_s(self) -> int:
        """Length of a step in seconds."""
        return int(self.step.total_seconds())

    @property
    def moments(self) -> list[datetime]:
        """Beginnings of the steps, oldest first."""
        count = (self.until - self.since) // self.step
        return [self.since + number * self.step for number in range(count)]


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Times in milliseconds that 50, 95 and 99% of the answers needed at most."""

    p50: int
    p95: int
    p99: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Requests from `at` to the next step. `latency` is of answered requests, `first_token` of
    streamed answers; None without any. `units` is the amount in `unit`."""

    at: datetime
    requests: int = 0
    failed: int = 0
    canceled: int = 0
    units: int = 0
    unit: str = Unit.TOKENS
    cost_micro: int = 0
    latency: Percentiles | None = None
    first_token: Percentiles | None = None

    @property
    def error_rate(self) -> float:
        """Failed requests as a share of those that were not canceled, from 0 to 1."""
        ended = self.requests - self.canceled
        return self.failed / ended if ended else 0.0


@dataclass(frozen=True, slots=True)
class Phases:
    """Mean milliseconds of each phase of answered requests.

    `load` is the wait for a deployment that was scaled to zero, `queue` the wait for a place in the
    engine. A streamed answer then has `prefill`, up to the first token, and `stream`; all others
    have `compute`.
    """

    requests: int
    load: float
    queue: float
    prefill: float
    stream: float
    compute: float

    NAMES = ("load", "queue", "prefill", "stream", "compute")

    @property
    def total(self) -> float:
        return self.load + self.queue + self.prefill + self.stream + self.compute

    @property
    def shares(self) -> dict[str, float]:
        """Return each phase as a share of the time, from 0 to 1, in the order of a request."""
        total = self.total
        return {name: getattr(self, name) / total if total else 0.0 for name in self.NAMES}


@dataclass(frozen=True, slots=True)
class Performance:
    """Figures by step and in total; phases of all answers and of the slowest 5 %."""

    window: Window
    points: list[Figures]
    total: Figures
    all_answers: Phases
    slowest: Phases


class _Percentile(Aggregate):
    """`percentile_disc` at the three fractions of `Percentiles`, with one sort."""

    function = "PERCENTILE_DISC"
    template = "%(function)s(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY %(expressions)s)"

    def __init__(self, column: str, **extra: Any) -> None:
        super().__init__(column, output_field=ArrayField(IntegerField()), **extra)


_FIGURES: dict[str, Any] = {
    "requests": Count("id"),
    "failed": Count("id", filter=~Q(outcome__in=("ok", "canceled"))),
    "canceled": Count("id", filter=Q(outcome="canceled")),
    "used": Sum("units", default=0),
    "used_unit": Max("unit"),
    "cost": Sum("cost_micro", default=0),
    "latency": _Percentile("total_ms", filter=_ANSWERED),
    "first_token": _Percentile("first_token_ms", filter=_ANSWERED),
}
_TOTALS: dict[str, Any] = {
    "failed": whole_sum(F("requests") - F("answered") - F("canceled")),
    "requests": whole_sum("requests"),
    "canceled": whole_sum("canceled"),
    "used": whole_sum("units"),
    "used_unit": Max("unit"),
    "cost": whole_sum("cost_micro"),
}
# Clocks of workers and gateways may differ, so that a wait may seem longer than the request.
_WAITED = F("load_ms") + F("queue_ms")
_STREAMED = Q(first_token_ms__isnull=False)


def _phase(began: Any, ended: Any, answers: Q) -> Sum:
    return Sum(Greatest(ended - began, Value(0)), filter=answers, default=0)


_PHASES: dict[str, Any] = {
    "requests": Count("id"),
    "load": Sum("load_ms", default=0),
    "queue": Sum("queue_ms", default=0),
    "prefill": _phase(_WAITED, F("first_token_ms"), _STREAMED),
    "stream": _phase(Greatest(F("first_token_ms"), _WAITED), F("total_ms"), _STREAMED),
    "compute": _phase(_WAITED, F("total_ms"), ~_STREAMED),
}


def performance(actor: Principal, deployment: str, window: Window) -> Performance:
    """Return the performance of a deployment within a window, from the usage that the actor may
    see, with four queries at most.

    Raises:
        Unavailable: a query took longer than `LIMIT_MS`.
    """
    too_many = Unavailable(
        "This period has too many requests to summarize in time.", hint="Choose a shorter period."
    )
    with statements_within(LIMIT_MS, too_many):
        if window.step % TIMES_STEP:
            return _from_records(usage_visible_to(actor), deployment, window)
        return _from_sums(actor, deployment, window)


def _from_records(records: QuerySet[UsageRecord], deployment: str, window: Window) -> Performance:
    rows = (
        records.filter(
            deployment=deployment, occurred_at__gte=window.since, occurred_at__lt=window.until
        )
        .exclude(endpoint__startswith=JOBS)
        .order_by()
    )
    steps = {
        row["bin"]: _from_row(row["bin"], row)
        for row in rows.annotate(bin=_bin("occurred_at", window)).values("bin").annotate(**_FIGURES)
    }
    total = _from_row(window.since, rows.aggregate(**_FIGURES))
    answered = rows.filter(_ANSWERED)
    slow = total.latency.p95 if total.latency else 0
    phases = [
        _phases(each.aggregate(**_PHASES))
        for each in (answered, answered.filter(total_ms__gte=slow))
    ]
    return _performance(window, steps, total, *phases)


def _from_sums(actor: Principal, deployment: str, window: Window) -> Performance:
    within = {"at__gte": window.since, "at__lt": window.until}
    whole_days = window.step % timedelta(days=1) == timedelta(0)
    totals = UsageTotal.objects.filter(
        step=UsageTotal.Step.DAY if whole_days else UsageTotal.Step.HOUR,
        by=UsageTotal.By.DEPLOYMENT,
        name=deployment,
        jobs=False,
        **within,
    )
    times = UsageTimes.objects.filter(
        step=UsageTimes.Step.DAY if whole_days else UsageTimes.Step.PART,
        deployment=deployment,
        **within,
    )
    totals = visible_to(actor, Action.USAGE_VIEW, totals.order_by(), resource_type="usage")
    times = visible_to(actor, Action.USAGE_VIEW, times.order_by(), resource_type="usage")
    latency: dict[datetime | None, Counter[int]] = defaultdict(Counter)
    first_token: dict[datetime | None, Counter[int]] = defaultdict(Counter)
    phases: dict[int, Counter[str]] = defaultdict(Counter)
    for row in times:
        at = window.since + (row.at - window.since) // window.step * window.step
        for counted, buckets, answers in (
            (latency, row.buckets, row.answers),
            (first_token, row.first_buckets, row.first_answers),
        ):
            count = Counter(dict(zip(buckets, answers, strict=True)))
            counted[at] += count
            counted[None] += count
        for name in Phases.NAMES:
            for bucket, amount in zip(row.buckets, getattr(row, name), strict=True):
                phases[bucket][name] += amount

    def figures(at: datetime, sums: Mapping[str, Any], among: datetime | None) -> Figures:
        both = {"latency": latency[among], "first_token": first_token[among]}
        return _figures(at, sums, **{name: _percentiles(each) for name, each in both.items()})

    steps = {
        row["bin"]: figures(row["bin"], row, row["bin"])
        for row in totals.annotate(bin=_bin("at", window)).values("bin").annotate(**_TOTALS)
    }
    total = figures(window.since, totals.aggregate(**_TOTALS), None)
    slow = bucket_of(total.latency.p95) if total.latency else 0

    def phases_from(least: int) -> Phases:
        sums: Counter[str] = Counter(dict.fromkeys(("requests", *Phases.NAMES), 0))
        for bucket, amounts in phases.items():
            if bucket >= least:
                sums.update(amounts, requests=latency[None][bucket])
        return _phases(dict(sums))

    return _performance(window, steps, total, phases_from(0), phases_from(slow))


def bucket_of(milliseconds: int) -> int:
    """Return the lower bound of the bucket of a duration in `UsageTimes`."""
    spare = max(0, milliseconds.bit_length() - _BUCKET_BITS)
    return milliseconds >> spare << spare


def _percentiles(buckets: Counter[int]) -> Percentiles | None:
    """Return the percentiles of the middles of buckets; None without answers."""
    count = buckets.total()
    if not count:
        return None
    values, passed = [], 0
    ordered = iter(sorted(buckets))
    bucket = next(ordered)
    for percent in (50, 95, 99):
        while 100 * (passed + buckets[bucket]) < percent * count:
            passed += buckets[bucket]
            bucket = next(ordered)
        width = 1 << max(0, bucket.bit_length() - _BUCKET_BITS)
        values.append(bucket + width // 2)
    return Percentiles(*values)


def _bin(column: str, window: Window) -> Func:
    """Return the beginning of the step in which a moment is."""
    return Func(
        Value(window.step),
        F(column),
        Value(window.since),
        function="date_bin",
        output_field=DateTimeField(),
    )


def _performance(
    window: Window,
    steps: Mapping[datetime, Figures],
    total: Figures,
    all_answers: Phases,
    slowest: Phases,
) -> Performance:
    points = [steps.get(at, Figures(at, unit=total.unit)) for at in window.moments]
    return Performance(window, points, total, all_answers, slowest)


def _from_row(at: datetime, row: Mapping[str, Any]) -> Figures:
    latency, first = (
        Percentiles(*row[name]) if row[name] else None for name in ("latency", "first_token")
    )
    return _figures(at, row, latency=latency, first_token=first)


def _figures(at: datetime, row: Mapping[str, Any], **percentiles: Percentiles | None) -> Figures:
    return Figures(
        at=at,
        requests=row["requests"],
        failed=row["failed"],
        canceled=row["canceled"],
        units=row["used"],
        unit=row["used_unit"] or Unit.TOKENS,
        cost_micro=row["cost"],
        **percentiles,
    )


def _phases(sums: dict[str, int]) -> Phases:
    requests = sums.pop("requests")
    means = {name: amount / requests if requests else 0.0 for name, amount in sums.items()}
    return Phases(requests=requests, **means)
