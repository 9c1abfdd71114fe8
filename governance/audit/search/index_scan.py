"""Scans of the audit log's indexes: each key's ids in order, read only as far as requested.

The planner may look at indexes alone meanwhile. Left to itself it goes down the primary key past
events that do not match, which takes as long as the log is when there are few that do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction

from governance.audit.models import AuditEvent
from governance.audit.search.filters import Way

LAST = 2**63 - 1
TABLE = AuditEvent._meta.db_table
_SWITCHES = ("enable_indexscan", "enable_bitmapscan", "enable_seqscan")


@dataclass(frozen=True, slots=True)
class Stretch:
    """Ids from `low` up to `high`, that one excluded; gone through from one of its ends."""

    low: int
    high: int
    newest_first: bool = True

    @property
    def order(self) -> str:
        return "DESC" if self.newest_first else "ASC"

    def within(self, low: int, high: int) -> Stretch:
        return Stretch(max(low, self.low), min(high, self.high), self.newest_first)

    def until(self, place: int | None) -> Stretch:
        """The part of it up to and including `place`; all of it without one."""
        if place is None:
            return self
        return self.within(place, LAST) if self.newest_first else self.within(0, place + 1)

    def __bool__(self) -> bool:
        return self.low < self.high


def keys_of(ways: tuple[Way, ...]) -> int:
    """Number of keys that are looked up."""
    return sum(len(way.keys) for way in ways)


@contextmanager
def _indexes_alone() -> Iterator[Any]:
    """A cursor whose queries are answered from indexes."""
    with transaction.atomic(savepoint=False), connection.cursor() as cursor:
        _switch(cursor, "off")
        yield cursor
        _switch(cursor, "on")


def _switch(cursor: Any, state: str) -> None:
    each = ", ".join("set_config(%s, %s, true)" for _ in _SWITCHES)
    cursor.execute(f"SELECT {each}", [part for name in _SWITCHES for part in (name, state)])


def reaches(ways: list[Way], stretch: Stretch, depth: int) -> list[int | None]:
    """For ways of one key each the id of its event number `depth`; None when it has fewer. Before
    them the ids of the first and last events of all."""
    each = [f"(SELECT min(id) FROM {TABLE})", f"(SELECT max(id) FROM {TABLE})"]  # noqa: S608
    values: list[Any] = []
    for way in ways:
        sql, more = _entries(way, stretch)
        each.append(f"({sql} OFFSET {depth - 1} LIMIT 1)")
        values += [*way.keys[0], *more]
    with _indexes_alone() as cursor:
        cursor.execute(f"SELECT {', '.join(each)}", values)
        return list(cursor.fetchone())


def end_of(stretch: Stretch, depth: int) -> int | None:
    """The id of event number `depth` of the stretch; None when it has fewer."""
    sql, values = _entries(Way((), ((),)), stretch)
    with connection.cursor() as cursor:
        cursor.execute(f"{sql} OFFSET {depth - 1} LIMIT 1", values)
        row = cursor.fetchone()
    return row[0] if row else None


def ids_along(ways: tuple[Way, ...], stretch: Stretch, depth: int) -> tuple[list[int], int | None]:
    """The ids of the first `depth` events of each key, in one order, as far as they are whole; and
    the id at which they end, None when these are all of the stretch."""
    parts = [_each_key(way, stretch, depth, number) for number, way in enumerate(ways)]
    with _indexes_alone() as cursor:
        cursor.execute(
            " UNION ALL ".join(sql for sql, _ in parts), [v for _, more in parts for v in more]
        )
        rows = cursor.fetchall()
    found: dict[tuple[int, int], list[int]] = {}
    for way, key, event in rows:
        found.setdefault((way, key), []).append(event)
    nearest, furthest = (max, min) if stretch.newest_first else (min, max)
    ends = [furthest(ids) for ids in found.values() if len(ids) >= depth]
    cut = nearest(ends) if ends else None
    whole = stretch.until(cut)
    ids = {event for _, _, event in rows if whole.low <= event < whole.high}
    return sorted(ids, reverse=stretch.newest_first), cut


def _entries(way: Way, stretch: Stretch) -> tuple[str, list[Any]]:
    """SQL for one key's ids, in order; the key's values come before the others."""
    tests = [*(f"{column} = %s" for column in way.columns), "id >= %s", "id < %s"]
    tests += [way.where] if way.where else []
    sql = (
        f"SELECT id FROM {TABLE} WHERE {' AND '.join(tests)} "  # noqa: S608 (our own names)
        f"ORDER BY id {stretch.order}"
    )
    return sql, [stretch.low, stretch.high]


def _each_key(way: Way, stretch: Stretch, depth: int, number: int) -> tuple[str, list[Any]]:
    """SQL for (way, key, id) of up to `depth` events of each key."""
    sql, values = _entries(way, stretch)
    if not way.columns:
        return f"(SELECT {number}, 0::bigint, id FROM ({sql} LIMIT {depth}) AS e)", values  # noqa: S608
    names = [f"k{place}" for place in range(len(way.columns))]
    for name in names:
        sql = sql.replace("= %s", f"= k.{name}", 1)
    listed = ", ".join("%s::text[]" for _ in names)
    whole = (
        f"(SELECT {number}, k.place, e.id "  # noqa: S608 (our own names)
        f"FROM unnest({listed}) WITH ORDINALITY AS k({', '.join(names)}, place) "
        f"CROSS JOIN LATERAL ({sql} LIMIT {depth}) AS e)"
    )
    keys: list[Any] = [list(column) for column in zip(*way.keys, strict=True)]
    return whole, [*keys, *values]
