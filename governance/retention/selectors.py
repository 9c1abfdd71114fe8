"""Reads about retention: the rules, the months of each table, and what happens next."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from django.utils import timezone

from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize
from governance.principals import Principal
from governance.retention.models import ArchivedMonth, ArchiveState, Growing, RetentionRule
from governance.retention.months import Month, month_after, month_of, months_of

GONE = (ArchiveState.DROPPED, ArchiveState.CLEARED)


@dataclass(frozen=True, slots=True)
class TableRetention:
    """Retention of one table: `kept_months` is None if it is kept forever. `next_drop` is the next
    month to be exported and dropped, on `next_drop_on`; both are None without one."""

    growing: Growing
    kept_months: int | None
    months: list[Month]
    archives: list[ArchivedMonth]
    next_drop: date | None
    next_drop_on: date | None

    @property
    def rows(self) -> int:
        """Estimated number of rows."""
        return sum(month.rows for month in self.months)

    @property
    def size_bytes(self) -> int:
        return sum(month.size_bytes for month in self.months)

    @property
    def last_export(self) -> ArchivedMonth | None:
        done = [each for each in self.archives if each.verified_at is not None]
        return max(done, key=lambda each: each.verified_at or each.started_at, default=None)


def kept_months(growing: Growing) -> int | None:
    """Return the number of whole months for which a table is kept; None keeps it forever."""
    rule = RetentionRule.objects.filter(pk=growing).first()
    return growing.default_months if rule is None else rule.months


def months_due(growing: Growing) -> list[date]:
    """Return the months of a table that are older than its retention, the oldest first."""
    kept = kept_months(growing)
    if kept is None:
        return []
    first_kept = month_after(month_of(timezone.now()), -kept)
    return [each.month for each in months_of(growing) if each.month and each.month < first_kept]


def retention_overview(*, actor: Principal) -> list[TableRetention]:
    """Return the retention of every table, with its months and exports.

    Raises:
        NotPermitted: the policy denies viewing the platform's machines and stores.
    """
    authorize(actor=actor, action=Action.NODE_VIEW, resource=Resource("node"))
    return [_overview(growing) for growing in Growing]


def _overview(growing: Growing) -> TableRetention:
    kept, months = kept_months(growing), months_of(growing)
    oldest = next((each.month for each in months if each.month), None)
    following = oldest if kept is not None else None
    return TableRetention(
        growing=growing,
        kept_months=kept,
        months=months,
        archives=list(ArchivedMonth.objects.filter(name=growing)),
        next_drop=following,
        next_drop_on=month_after(following, kept + 1) if following and kept is not None else None,
    )


def dropped_months(growing: Growing, months: set[date]) -> set[date]:
    """Return those of the months that were dropped."""
    rows = ArchivedMonth.objects.filter(name=growing, month__in=months, state__in=GONE)
    return set(rows.values_list("month", flat=True))


def archive_failing() -> str:
    """Return a sentence about exports whose last attempt failed, or an empty string."""
    failed = ArchivedMonth.objects.exclude(error="").exclude(state=ArchiveState.CLEARED)
    return " ".join(f"{each} was not exported and dropped: {each.error}" for each in failed[:5])
