"""Numbers on the first page, by role, each with its trend over two or eight weeks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Aggregate, Count, DurationField, ExpressionWrapper, F, Q
from django.db.models.functions import TruncDate, TruncWeek

from assay.portal.access import may_somewhere
from governance.audit.search.filters import EventFilter
from governance.audit.search.index_scan import LAST, Stretch
from governance.audit.search.spans import stretches_of
from governance.audit.selectors import audit_events_visible_to
from governance.database.statements import statements_within
from governance.errors import Unavailable
from governance.permissions import Action
from governance.principals import Principal
from governance.quotas.kinds import MICRO
from governance.reviews.selectors import reviews_visible_to
from governance.usage.selectors import (
    beginning_of,
    may_view_usage,
    usage_totals_visible_to,
    whole_sum,
)
from workers.jobs.models import JobState
from workers.jobs.selectors import jobs_visible_to

DAYS, WEEKS = 14, 8
LIMIT_MS = 5_000
# Size of a sparkline in SVG units.
_WIDTH, _HEIGHT = 100, 24
# Stretches of the audit log; there are several only after a clock was wrong.
_STRETCHES = 4


@dataclass(frozen=True, slots=True)
class Number:
    """A number, a note that compares it, the page with its details, and its trend.

    `trend` has its values by day or week, oldest first; `trend_title` describes them to assistive
    technology.
    """

    title: str
    value: str
    note: str
    page: str
    trend: Sequence[float]
    trend_title: str
    tone: str = ""

    @property
    def points(self) -> str:
        return sparkline(self.trend)

    @property
    def label(self) -> str:
        values = ", ".join(f"{round(value, 2):,}" for value in self.trend)
        return f"{self.trend_title}, oldest first: {values}"


def has_numbers(actor: Principal) -> bool:
    """Return true if any number is for the actor's roles. Runs no query."""
    return any(permitted(actor) for permitted, _ in SOURCES)


def numbers_of(actor: Principal) -> list[Number]:
    """Return the numbers of the actor's roles. A source that takes too long is left out."""
    numbers: list[Number] = []
    for permitted, source in SOURCES:
        if permitted(actor):
            try:
                with statements_within(LIMIT_MS, Unavailable("The numbers take too long.")):
                    numbers += source(actor)
            except Unavailable:
                continue
    return numbers


def sparkline(values: Sequence[float]) -> str:
    """Return points for an SVG polyline; a flat line at the bottom if all values are zero."""
    tallest = max(values, default=0) or 1
    step = _WIDTH / max(len(values) - 1, 1)
    return " ".join(
        f"{place * step:.1f},{_HEIGHT - 2 - (_HEIGHT - 4) * value / tallest:.1f}"
        for place, value in enumerate(values)
    )


def compared(new: float, old: float, before: str, digits: int = 0) -> str:
    """Return the change since the period `before`: `+12% vs. the 7 days before`."""
    if not old:
        return f"none in {before}" if new else f"none in {before} either"
    if new >= 10 * old:
        return f"{old:,.{digits}f} in {before}"
    change = round(100 * (new - old) / old)
    return f"{change:+d}% vs. {before}" if change else f"same as {before}"


def _reviews(actor: Principal) -> Iterator[Number]:
    """Yield the number of closed reviews and their median duration, by week."""
    today = beginning_of(1)
    first = today - timedelta(days=today.weekday(), weeks=WEEKS - 1)
    duration = ExpressionWrapper(F("closed_at") - F("opened_at"), output_field=DurationField())
    rows = (
        reviews_visible_to(actor)
        .filter(closed_at__gte=first)
        .order_by()
        .values(week=TruncWeek("closed_at", tzinfo=UTC))
        .annotate(closed=Count("pk"), median=_Median(duration))
    )
    by_week = {row["week"]: row for row in rows}
    weeks: list[Any] = [by_week.get(first + timedelta(weeks=week), {}) for week in range(WEEKS)]
    closed = [row.get("closed", 0) for row in weeks]
    hours = [row["median"] / timedelta(hours=1) if row else 0.0 for row in weeks]
    latest = next((row["median"] for row in reversed(weeks) if row), None)
    yield Number(
        "Reviews closed this week",
        f"{closed[-1]:,}",
        f"{closed[-2]:,} last week",
        "portal:reviews",
        closed,
        "Reviews closed by week",
    )
    yield Number(
        "Median time to a decision",
        "–" if latest is None else _duration(latest),
        "in the latest week with a decision",
        "portal:reviews",
        hours,
        "Median hours by week",
    )


def _usage(actor: Principal) -> Iterator[Number]:
    """Yield the requests, their error rate and their cost, by day."""
    rows = (
        usage_totals_visible_to(actor, days=DAYS)
        .filter(jobs=False)
        .values(day=TruncDate("at", tzinfo=UTC))
        .annotate(
            failed=whole_sum(F("requests") - F("answered") - F("canceled")),
            requests=whole_sum("requests"),
            cost=whole_sum("cost_micro"),
        )
    )
    days = _filled(rows, ("requests", "failed", "cost"))
    requests, failed = days["requests"], days["failed"]
    yield _number("Requests, 7 days", requests, "portal:usage")
    rate = 100 * sum(failed[-7:]) / max(sum(requests[-7:]), 1)
    before = 100 * sum(failed[:-7]) / max(sum(requests[:-7]), 1)
    yield Number(
        "Failed requests, 7 days",
        f"{rate:.1f}%",
        f"{before:.1f}% in the 7 days before",
        "portal:usage",
        failed,
        "Failed requests by day",
        "bad" if rate > before and any(failed[-7:]) else "",
    )
    if any(days["cost"]):
        cost = [amount / MICRO for amount in days["cost"]]
        yield _number(f"Cost in {settings.CURRENCY}, 7 days", cost, "portal:budgets", digits=2)


def _jobs(actor: Principal) -> Iterator[Number]:
    """Yield the number of jobs that ended, by day, and how many of them failed."""
    rows = (
        jobs_visible_to(actor)
        .filter(finished_at__gte=beginning_of(DAYS))
        .order_by()
        .values(day=TruncDate("finished_at", tzinfo=UTC))
        .annotate(ended=Count("pk"), failed=Count("pk", filter=Q(state=JobState.FAILED)))
    )
    days = _filled(rows, ("ended", "failed"))
    failed = sum(days["failed"][-7:])
    yield Number(
        "Jobs ended, 7 days",
        f"{sum(days['ended'][-7:]):,}",
        f"{failed:,} failed",
        "portal:jobs",
        days["ended"],
        "Jobs ended by day",
        "bad" if failed else "",
    )


def _denials(actor: Principal) -> Iterator[Number]:
    """Yield the number of denied actions in the audit log, by day."""
    since = beginning_of(DAYS)
    # Spans bound the IDs, so that the index by outcome is not read from its beginning.
    stretches = stretches_of(EventFilter(since=since), Stretch(0, LAST), _STRETCHES)
    low = min((stretch.low for stretch in stretches), default=LAST)
    rows = (
        audit_events_visible_to(actor, outcome="denied", since=since)
        .filter(pk__gte=low)
        .order_by()
        .values(day=TruncDate("occurred_at", tzinfo=UTC))
        .annotate(denied=Count("pk"))
    )
    denied = _filled(rows, ("denied",))["denied"]
    yield _number("Denied actions, 7 days", denied, "portal:audit")


class _Median(Aggregate):
    function = "PERCENTILE_DISC"
    template = "%(function)s(0.5) WITHIN GROUP (ORDER BY %(expressions)s)"


def _number(title: str, values: Sequence[float], page: str, digits: int = 0) -> Number:
    """Return the sum of the last seven days, compared with the seven days before."""
    new, old = sum(values[-7:]), sum(values[:-7])
    note = compared(new, old, "the 7 days before", digits)
    trend_title = f"{title.partition(',')[0]} by day"
    return Number(title, f"{new:,.{digits}f}", note, page, values, trend_title)


def _filled(rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> dict[str, list[int]]:
    """Return the values of each day, oldest first; days without rows have zeros."""
    by_day: dict[date, Mapping[str, Any]] = {row["day"]: row for row in rows}
    first = beginning_of(DAYS).date()
    days = [by_day.get(first + timedelta(days=day), {}) for day in range(DAYS)]
    return {name: [row.get(name, 0) for row in days] for name in names}


def _duration(duration: timedelta) -> str:
    hours = duration / timedelta(hours=1)
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} h"


def _sees_jobs(actor: Principal) -> bool:
    # Reviewers may view jobs, but run none themselves.
    return may_view_usage(actor) and may_somewhere(actor, Action.JOB_VIEW, kind="job")


# Reviewers decide, members use models and run jobs, auditors look for denials.
SOURCES: tuple[tuple[Callable[[Principal], bool], Callable[[Principal], Iterator[Number]]], ...] = (
    (lambda actor: bool(actor.specialties), _reviews),
    (may_view_usage, _usage),
    (_sees_jobs, _jobs),
    (lambda actor: may_somewhere(actor, Action.AUDIT_VIEW, kind="audit"), _denials),
)
