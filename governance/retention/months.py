"""Months of partitioned tables: create them ahead, list them with their sizes, drop them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from django.db import connection
from django.utils import timezone

from governance.request_log.models import LOG_TABLE
from governance.retention.models import ArchivedMonth, Growing

# Months that exist ahead of the current one.
AHEAD = 3
_PARTITIONS = """
SELECT right(c.relname, 6), greatest(c.reltuples, 0)::bigint, pg_total_relation_size(c.oid)
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = %s::regclass
 ORDER BY c.relname
"""


@dataclass(frozen=True, slots=True)
class Month:
    """A month of a table, with an estimate of its rows. `month` is None for rows outside of all
    months, which a wrong clock causes; these are never dropped."""

    month: date | None
    rows: int
    size_bytes: int


def month_of(moment: datetime) -> date:
    """Return the first day of a moment's month in UTC."""
    return moment.astimezone(UTC).date().replace(day=1)


def month_after(month: date, count: int = 1) -> date:
    """Return the first day of the month that is `count` months later, or earlier if negative."""
    number = month.year * 12 + month.month - 1 + count
    return date(number // 12, number % 12 + 1, 1)


def bounds(month: date) -> tuple[datetime, datetime]:
    """Return the beginning of a month in UTC, and its end."""
    begins, ends = (datetime.combine(each, time.min, UTC) for each in (month, month_after(month)))
    return begins, ends


def months_of(growing: Growing) -> list[Month]:
    """Return the months of a table, the oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(_PARTITIONS, [growing.table])
        rows = cursor.fetchall()
    return [
        Month(
            date(int(name[:4]), int(name[4:]), 1) if name.isdecimal() else None, count, size_bytes
        )
        for name, count, size_bytes in rows
    ]


def months_add_due() -> int:
    """Create the months that are missing up to `AHEAD`; return their number. For the controller."""
    created, current = 0, month_of(timezone.now())
    with connection.cursor() as cursor:
        for table in (*(growing.table for growing in Growing), LOG_TABLE):
            for count in range(AHEAD + 1):
                month = month_after(current, count)
                cursor.execute("SELECT assay_month_add(%s, %s)", [table, month])
                created += bool((cursor.fetchone() or (False,))[0])
    return created


def months_missing() -> str:
    """Return a sentence if the next month of a table does not exist a week before it begins."""
    soon = month_of(timezone.now() + timedelta(days=7))
    missing = [
        growing.label
        for growing in Growing
        if soon not in {month.month for month in months_of(growing)}
    ]
    if not missing:
        return ""
    tables = " and ".join(missing)
    return f"There is no partition for {soon:%B %Y} of {tables}. Is the controller running?"


def month_drop(archived: ArchivedMonth) -> None:
    """Drop the month from the database, in the caller's transaction.

    Raises:
        django.db.Error: the export is not verified, or has another number of rows; the month is too
            young; or the table was in use for 2 s.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT assay_month_drop(%s)", [archived.pk])
