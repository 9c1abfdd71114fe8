"""Latency, errors and use of one deployment over time, from the ledger.

Each query reads one window on the index by deployment and time, and is canceled after `LIMIT_MS`.
"""

from __future__ import annotations

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
from governance.usage.models import UsageRecord
from governance.usage.records import JOBS
from governance.usage.units import Unit

LIMIT_MS = 10_000
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


def performance(records: QuerySet[UsageRecord], deployment: str, window: Window) -> Performance:
    """Return the performance of a deployment within a window, from the records that the actor may
    see (`usage_visible_to`), with four queries.

    Raises:
        Unavailable: a query took longer than `LIMIT_MS`.
    """
    rows = (
        records.filter(
            deployment=deployment, occurred_at__gte=window.since, occurred_at__lt=window.until
        )
        .exclude(endpoint__startswith=JOBS)
        .order_by()
    )
    bin_ = Func(
        Value(window.step),
        F("occurred_at"),
        Value(window.since),
        function="date_bin",
        output_field=DateTimeField(),
    )
    too_many = Unavailable(
        "This period has too many requests to summarize in time.", hint="Choose a shorter period."
    )
    with statements_within(LIMIT_MS, too_many):
        steps = {
            row["bin"]: _figures(row["bin"], row)
            for row in rows.annotate(bin=bin_).values("bin").annotate(**_FIGURES)
        }
        total = _figures(window.since, rows.aggregate(**_FIGURES))
        answered = rows.filter(_ANSWERED)
        slow = total.latency.p95 if total.latency else 0
        phases = [
            _phases(each.aggregate(**_PHASES))
            for each in (answered, answered.filter(total_ms__gte=slow))
        ]
    return Performance(
        window=window,
        points=[steps.get(at, Figures(at, unit=total.unit)) for at in window.moments],
        total=total,
        all_answers=phases[0],
        slowest=phases[1],
    )


def _figures(at: datetime, row: Mapping[str, Any]) -> Figures:
    return Figures(
        at=at,
        requests=row["requests"],
        failed=row["failed"],
        canceled=row["canceled"],
        units=row["used"],
        unit=row["used_unit"] or Unit.TOKENS,
        cost_micro=row["cost"],
        latency=Percentiles(*row["latency"]) if row["latency"] else None,
        first_token=Percentiles(*row["first_token"]) if row["first_token"] else None,
    )


def _phases(sums: dict[str, int]) -> Phases:
    requests = sums.pop("requests")
    means = {name: amount / requests if requests else 0.0 for name, amount in sums.items()}
    return Phases(requests=requests, **means)
