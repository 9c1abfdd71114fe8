"""Reads of the ledger: records and sums."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.db.models import Case, CharField, Count, F, Q, QuerySet, Sum, Value, When
from django.db.models.expressions import Expression
from django.db.models.functions import TruncDate

from governance.errors import InvalidInput
from governance.permissions import Action
from governance.policy.context import with_base
from governance.policy.engine import Resource, decide
from governance.policy.selectors import visible_to
from governance.policy.services import active_policy
from governance.principals import Principal
from governance.rowsecurity import lifted
from governance.usage.models import UsageRecord
from governance.usage.units import Unit

MAX_DAYS = 366
# Possible groupings of sums, with their columns.
GROUPS = {"department": "department", "deployment": "deployment", "key": "key_public_id"}
GROUPS_SHOWN = 20


_SUMS = {
    "requests": Count("id"),
    "failed": Count("id", filter=Q(outcome="failed")),
    "prompt_tokens": Sum("prompt_tokens", default=0),
    "completion_tokens": Sum("completion_tokens", default=0),
}
# Amounts of different units are never added.
UNIT_SUMS = {f"of_{unit}": Sum("units", filter=Q(unit=unit), default=0) for unit in Unit}


def units_of(row: dict[str, Any]) -> dict[str, int]:
    """Remove the `UNIT_SUMS` from a row; return those that are not zero."""
    sums = {unit.value: row.pop(f"of_{unit}") for unit in Unit}
    return {unit: amount for unit, amount in sums.items() if amount}


def usage_visible_to(actor: Principal) -> QuerySet[UsageRecord]:
    """Return the records that the policy lets `actor` see, newest first."""
    records = UsageRecord.objects.order_by("-id")
    return visible_to(actor, Action.USAGE_VIEW, records, resource_type="usage")


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


def usage_grouped(actor: Principal, days: int, by: str | None = None) -> list[UsageSum]:
    """Return daily sums over the last `days` days, oldest first, without days without use; with
    `by`, for each of the 20 largest groups.

    Raises:
        InvalidInput: `days` is not between 1 and 366, or `by` is not in `GROUPS`.
    """
    records = usage_visible_to(actor).filter(occurred_at__gte=beginning_of(days)).order_by()
    whole: Expression = Value(None, CharField(null=True))
    name = whole
    if by is not None:
        if by not in GROUPS:
            raise InvalidInput(f"Usage can be grouped by {', '.join(GROUPS)}, not by {by[:40]}.")
        column = GROUPS[by]
        sizes = records.values(column).annotate(size=Sum("cost_micro"), requests=Count("id"))
        largest = sizes.order_by("-size", "-requests").values_list(column, flat=True)
        name = Case(When(**{f"{column}__in": list(largest[:GROUPS_SHOWN])}, then=F(column)))
    rows: Iterable[Any] = (
        records.annotate(day=TruncDate("occurred_at"), name=name)
        .values("day", "name")
        .annotate(**_SUMS, **UNIT_SUMS, device_ms=Sum("device_ms"), cost_micro=Sum("cost_micro"))
        .order_by("day", F("name").asc(nulls_last=True))
    )
    return [UsageSum(units=units_of(row), **row) for row in rows]


def beginning_of(days: int) -> datetime:
    """Return the start of the last `days` days in UTC, of which today is the last.

    Raises:
        InvalidInput: `days` is not between 1 and 366.
    """
    if not 1 <= days <= MAX_DAYS:
        raise InvalidInput(f"Usage is shown for 1 to {MAX_DAYS} days, not {days}.")
    first = datetime.now(UTC).date() - timedelta(days=days - 1)
    return datetime.combine(first, time.min, UTC)
