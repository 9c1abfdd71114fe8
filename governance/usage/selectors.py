"""Reading the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from django.db.models import Count, Q, QuerySet, Sum
from django.db.models.functions import TruncDate
from django.utils import timezone

from governance.errors import InvalidInput
from governance.permissions import Action
from governance.policy.selectors import visible_to
from governance.principals import Principal
from governance.usage.models import UsageRecord

MAX_DAYS = 366


@dataclass(frozen=True, slots=True)
class UsageTotals:
    """Sums over some records; `failed` counts requests that ran and did not end well."""

    requests: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class UsageDay:
    """The sums of one day in UTC."""

    day: date
    totals: UsageTotals


_SUMS = {
    "requests": Count("id"),
    "failed": Count("id", filter=Q(outcome="failed")),
    "prompt_tokens": Sum("prompt_tokens", default=0),
    "completion_tokens": Sum("completion_tokens", default=0),
}


def usage_visible_to(actor: Principal) -> QuerySet[UsageRecord]:
    """The records that the policy lets `actor` see, newest first."""
    records = UsageRecord.objects.order_by("-id")
    return visible_to(actor, Action.USAGE_VIEW, records, resource_type="usage")


def usage_by_day(actor: Principal, days: int = 30) -> list[UsageDay]:
    """The sums of each of the last `days` days, today last; days without requests are there too.

    Raises:
        InvalidInput: `days` is not between 1 and 366.
    """
    days_seen = _recent(actor, days).annotate(day=TruncDate("occurred_at")).order_by()
    rows = days_seen.values("day").annotate(**_SUMS).values_list("day", *_SUMS)
    found = {day: UsageTotals(*sums) for day, *sums in rows}
    first = _first_day(days)
    every = (first + timedelta(days=i) for i in range(days))
    return [UsageDay(day, found.get(day, UsageTotals())) for day in every]


def usage_totals(actor: Principal, days: int = 30) -> UsageTotals:
    """The sums over the last `days` days, today included.

    Raises:
        InvalidInput: `days` is not between 1 and 366.
    """
    return UsageTotals(**_recent(actor, days).aggregate(**_SUMS))


def _first_day(days: int) -> date:
    if not 1 <= days <= MAX_DAYS:
        raise InvalidInput(f"Usage is shown for 1 to {MAX_DAYS} days; {days} were asked for.")
    return timezone.now().date() - timedelta(days=days - 1)


def _recent(actor: Principal, days: int) -> QuerySet[UsageRecord]:
    return usage_visible_to(actor).filter(occurred_at__date__gte=_first_day(days))
