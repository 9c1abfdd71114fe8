"""Everything that the database holds, as text to look for something in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from django.contrib.sessions.models import Session
from django.db import connection

_COLUMNS = """
SELECT table_name, column_name, data_type FROM information_schema.columns
 WHERE table_schema = 'public' ORDER BY table_name, ordinal_position
"""


def rows() -> Iterator[tuple[str, str]]:
    """(table, row) of every row of every table; bytes as far as they are text."""
    columns: dict[str, list[str]] = {}
    with connection.cursor() as cursor:
        cursor.execute(_COLUMNS)
        for table, column, kind in cursor.fetchall():
            name = connection.ops.quote_name(column)
            shown = f"encode({name}, 'escape')" if kind == "bytea" else f"{name}::text"
            columns.setdefault(table, []).append(shown)
        for table, shown_columns in columns.items():
            cursor.execute(
                f"SELECT concat_ws(' | ', {', '.join(shown_columns)}) "  # noqa: S608 (our own names)
                f"FROM {connection.ops.quote_name(table)}"
            )
            yield from ((table, text) for (text,) in cursor.fetchall())
    # The data of a session is encoded.
    yield from (("django_session", str(row.get_decoded())) for row in Session.objects.all())


def found(canaries: Iterable[str]) -> list[tuple[str, str, str]]:
    """(canary, table, row) wherever one of them stands, in whatever case."""
    wanted = [canary.casefold() for canary in canaries]
    return [
        (canary, table, text)
        for table, text in rows()
        for canary in wanted
        if canary in text.casefold()
    ]
