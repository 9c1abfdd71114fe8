"""Reads of the ledger: records, and sums that are kept after its months were dropped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.db.models import BigIntegerField, CharField, F, Q, QuerySet, Sum, Value
from django.db.models.expressions import Expression
from django.db.models.functions import Cast, TruncDate

from governance.errors import InvalidInput
from governance.permissions import Action
from governance.policy.context import with_base
from governance.policy.engine import Resource, decide
from governance.policy.selectors import visible_to
from governance.policy.services import active_policy
from governance.principals import Principal
from governance.rowsecurity import lifted
from governance.usage.models import UsageRecord, UsageTotal
from governance.usage.units import Unit

MAX_DAYS = 366
# Possible groupings of sums, with the sums to read and their column.
GROUPS = {
    "department": (UsageTotal.By.ALL, "department"),
    "deployment": (UsageTotal.By.DEPLOYMENT, "name"),
    "key": (UsageTotal.By.KEY, "name"),
}
GROUPS_SHOWN = 20


def whole_sum(column: Any, only: Q | None = None) -> Cast:
    """Return the sum of whole numbers as an integer, 0 without rows: PostgreSQL adds up `bigint` as
    `numeric`, which Django returns as a Decimal."""
    return Cast(Sum(column, filter=only, default=0), BigIntegerField())


_SUMS = {
    name: whole_sum(name)
    for name in (
        *("requests", "failed", "prompt_tokens", "completion_tokens", "device_ms", "cost_micro"),
    )
}
# Amounts of different units are never added.
UNIT_SUMS = {f"of_{unit}": whole_sum("units", Q(unit=unit)) for unit in Unit}


def units_of(row: dict[str, Any]) -> dict[str, int]:
    """Remove the `UNIT_SUMS` from a row; return those that are not zero."""
    sums = {unit.value: row.pop(f"of_{unit}", 0) for unit in Unit}
    return {unit: amount for unit, amount in sums.items() if amount}


def usage_visible_to(actor: Principal) -> QuerySet[UsageRecord]:
    """Return the records that the policy lets `actor` see, newest first."""
    records = UsageRecord.objects.order_by("-occurred_at", "-id")
    return visible_to(actor, Action.USAGE_VIEW, records, resource_type="usage")


def usage_totals_visible_to(
    actor: Principal, by: UsageTotal.By = UsageTotal.By.ALL, *, days: int
) -> QuerySet[UsageTotal]:
    """Return the daily sums of the last `days` days that the policy lets `actor` see.

    Raises:
        InvalidInput: `days` is not between 1 and 366.
    """
    totals = UsageTotal.objects.filter(
        step=UsageTotal.Step.DAY, by=by, at__gte=beginning_of(days)
    ).order_by()
    return visible_to(actor, Action.USAGE_VIEW, totals, resource_type="usage")


def usage_of_period(actor: Principal, by: UsageTotal.By, *, days: int) -> QuerySet[UsageTotal]:
    """Return sums of the last `days` days that the policy lets `actor` see, but not by day: the
    days before the first Monday, then weeks.

    Raises:
        InvalidInput: `days` is not between 1 and 366.
    """
    since = beginning_of(days)
    monday = since + timedelta(days=-since.weekday() % 7)
    if by is UsageTotal.By.ALL:
        return usage_totals_visible_to(actor, by, days=days)
    parts = Q(step=UsageTotal.Step.WEEK, at__gte=monday) | Q(
        step=UsageTotal.Step.DAY, at__gte=since, at__lt=monday
    )
    totals = UsageTotal.objects.filter(parts, by=by).order_by()
    return visible_to(actor, Action.USAGE_VIEW, totals, resource_type="usage")


def may_view_usage(actor: Principal) -> bool:
    """Return whether the policy may show `actor` any record: platform-wide, or of a department."""
    snapshot, context = active_policy(), with_base(None)
    return any(
        decide(
            snapshot, actor, Action.USAGE_VIEW, Resource("usage", department=slug), context
        ).allowed
        for slug in (None, *sorted(actor.departments))
    )


def answers_from_source(actor: Principal, source: int) -> tuple[int, QuerySet[UsageRecord]]:
    """Return the number of requests that were answered from a document version, and those that
    `actor` may see, newest first."""
    with lifted():
        records = UsageRecord.objects.exclude(sources=[]).filter(sources__contains=[source])
        count = records.count()
    rows = usage_visible_to(actor).exclude(sources=[]).filter(sources__contains=[source])
    return count, rows


@dataclass(frozen=True, slots=True)
class UsageSum:
    """Sums of one day in UTC for one group; `name` is None for all smaller groups together.
    `units` has the sums of the units that were used.
    """

    day: date
    name: str | None
    requests: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    units: dict[str, int]
    device_ms: int
    cost_micro: int

    def without(self, other: UsageSum) -> UsageSum:
        """Return the difference of both sums."""
        left = {unit: amount - other.units.get(unit, 0) for unit, amount in self.units.items()}
        return UsageSum(
            day=self.day,
            name=self.name,
            units={unit: amount for unit, amount in left.items() if amount},
            **{name: getattr(self, name) - getattr(other, name) for name in _SUMS},
        )


def usage_grouped(actor: Principal, days: int, by: str | None = None) -> list[UsageSum]:
    """Return daily sums over the last `days` days, oldest first, without days without use; with
    `by`, for each of the 20 largest groups.

    Raises:
        InvalidInput: `days` is not between 1 and 366, or `by` is not in `GROUPS`.
    """
    if by is None:
        return _sums(usage_totals_visible_to(actor, days=days), Value(None, CharField(null=True)))
    if by not in GROUPS:
        raise InvalidInput(f"Usage can be grouped by {', '.join(GROUPS)}, not by {by[:40]}.")
    kind, column = GROUPS[by]
    sizes = usage_of_period(actor, kind, days=days).values(column)
    sizes = sizes.annotate(size=whole_sum("cost_micro"), count=whole_sum("requests"))
    largest = list(sizes.order_by("-size", "-count").values_list(column, flat=True)[:GROUPS_SHOWN])
    totals = usage_totals_visible_to(actor, kind, days=days)
    named = _sums(totals.filter(**{f"{column}__in": largest}), F(column))
    # Reading all groups of each day would take much longer.
    rest = {each.day: each for each in usage_grouped(actor, days)}
    for each in named:
        rest[each.day] = rest[each.day].without(each)
    rows = [*named, *(each for each in rest.values() if each.requests)]
    return sorted(rows, key=lambda row: (row.day, row.name is None, row.name or ""))


def _sums(totals: QuerySet[UsageTotal], group: Expression | F) -> list[UsageSum]:
    rows: Iterable[Any] = (
        totals.annotate(day=TruncDate("at"), group=group)
        .values("day", "group")
        .annotate(**_SUMS, **UNIT_SUMS)
        .order_by("day", "group")
    )
    return [UsageSum(name=row.pop("group"), units=units_of(row), **row) for row in rows]


def beginning_of(days: int) -> datetime:
    """Return the start of the last `days` days in UTC, of which today is the last.

    Raises:
        InvalidInput: `days` is not between 1 and 366.
    """
    if not 1 <= days <= MAX_DAYS:
        raise InvalidInput(f"Usage is shown for 1 to {MAX_DAYS} days, not {days}.")
    first = datetime.now(UTC).date() - timedelta(days=days - 1)
    return datetime.combine(first, time.min, UTC)
