"""Scans of the audit log's indexes: the IDs of each key in order, only as far as requested.

The planner is limited to index-only scans. Otherwise it may walk down the primary key, past events
that do not match, which reads the whole log if matches are rare.
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
    """A range of IDs from `low` to `high` (exclusive), and the direction of reading it."""

    low: int
    high: int
    newest_first: bool = True

    @property
    def order(self) -> str:
        return "DESC" if self.newest_first else "ASC"

    def within(self, low: int, high: int) -> Stretch:
        return Stretch(max(low, self.low), min(high, self.high), self.newest_first)

    def until(self, place: int | None) -> Stretch:
        """Return the part up to and including ID `place`; all of it for None."""
        if place is None:
            return self
        return self.within(place, LAST) if self.newest_first else self.within(0, place + 1)

    def __bool__(self) -> bool:
        return self.low < self.high


def keys_of(ways: tuple[Way, ...]) -> int:
    """Return the number of keys to look up."""
    return sum(len(way.keys) for way in ways)


@contextmanager
def _index_only() -> Iterator[Any]:
    """Open a cursor whose queries use index-only scans."""
    with transaction.atomic(savepoint=False), connection.cursor() as cursor:
        _switch(cursor, "off")
        yield cursor
        _switch(cursor, "on")


def _switch(cursor: Any, state: str) -> None:
    calls = ", ".join("set_config(%s, %s, true)" for _ in _SWITCHES)
    cursor.execute(f"SELECT {calls}", [part for name in _SWITCHES for part in (name, state)])


def reaches(ways: list[Way], stretch: Stretch, depth: int) -> list[int | None]:
    """Return the first and last ID of all events; then, for each way, which has one key, the ID of
    its event number `depth`, or None if it has fewer."""
    columns = [f"(SELECT min(id) FROM {TABLE})", f"(SELECT max(id) FROM {TABLE})"]  # noqa: S608
    values: list[Any] = []
    for way in ways:
        sql, more = _entries(way, stretch)
        columns.append(f"({sql} OFFSET {depth - 1} LIMIT 1)")
        values += [*way.keys[0], *more]
    with _index_only() as cursor:
        cursor.execute(f"SELECT {', '.join(columns)}", values)
        return list(cursor.fetchone())


def end_of(stretch: Stretch, depth: int) -> int | None:
    """Return the ID of event number `depth` of the stretch, or None if it has fewer."""
    sql, values = _entries(Way((), ((),)), stretch)
    with connection.cursor() as cursor:
        cursor.execute(f"{sql} OFFSET {depth - 1} LIMIT 1", values)
        row = cursor.fetchone()
    return row[0] if row else None


def ids_along(ways: tuple[Way, ...], stretch: Stretch, depth: int) -> tuple[list[int], int | None]:
    """Return the merged IDs of the first `depth` events of each key, up to the first ID at which a
    key was cut; and that ID, or None if these are all events of the stretch."""
    parts = [_each_key(way, stretch, depth, number) for number, way in enumerate(ways)]
    with _index_only() as cursor:
        cursor.execute(
            " UNION ALL ".join(sql for sql, _ in parts), [v for _, more in parts for v in more]
        )
        rows = cursor.fetchall()
    ids_by_key: dict[tuple[int, int], list[int]] = {}
    for way, key, event in rows:
        ids_by_key.setdefault((way, key), []).append(event)
    nearest, furthest = (max, min) if stretch.newest_first else (min, max)
    ends = [furthest(ids) for ids in ids_by_key.values() if len(ids) >= depth]
    cut = nearest(ends) if ends else None
    complete = stretch.until(cut)
    ids = {event for _, _, event in rows if complete.low <= event < complete.high}
    return sorted(ids, reverse=stretch.newest_first), cut


def _entries(way: Way, stretch: Stretch) -> tuple[str, list[Any]]:
    """Return SQL for one key's IDs in order; the key's values precede the returned values."""
    tests = [*(f"{column} = %s" for column in way.columns), "id >= %s", "id < %s"]
    tests += [way.where] if way.where else []
    sql = (
        f"SELECT id FROM {TABLE} WHERE {' AND '.join(tests)} "  # noqa: S608 (our own names)
        f"ORDER BY id {stretch.order}"
    )
    return sql, [stretch.low, stretch.high]


def _each_key(way: Way, stretch: Stretch, depth: int, number: int) -> tuple[str, list[Any]]:
    """Return SQL for (way, key, ID) of up to `depth` events of each key."""
    sql, values = _entries(way, stretch)
    if not way.columns:
        return f"(SELECT {number}, 0::bigint, id FROM ({sql} LIMIT {depth}) AS e)", values  # noqa: S608
    names = [f"k{place}" for place in range(len(way.columns))]
    for name in names:
        sql = sql.replace("= %s", f"= k.{name}", 1)
    arrays = ", ".join("%s::text[]" for _ in names)
    query = (
        f"(SELECT {number}, k.place, e.id "  # noqa: S608 (our own names)
        f"FROM unnest({arrays}) WITH ORDINALITY AS k({', '.join(names)}, place) "
        f"CROSS JOIN LATERAL ({sql} LIMIT {depth}) AS e)"
    )
    keys: list[Any] = [list(column) for column in zip(*way.keys, strict=True)]
    return query, [*keys, *values]
