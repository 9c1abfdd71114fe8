"""A database of the previous release, with rows that the code has made.

    python -m tests.upgrades     write `previous_release.txt` after a change of the baseline

A copy of the tests' database is filled by the code of today and migrated back to the baseline of
`migration_rules`. `previous_release.txt` has a digest of each table as the previous release's
migrations make it from nothing, so that the copy is known to be what that release left.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from psycopg import sql

from assay.database_roles.apply import apply_roles
from tests.migration_rules import BASELINE

KNOWN = Path(__file__).with_name("previous_release.txt")
# Everything of a table that the previous release relies on, as PostgreSQL describes it.
_SHAPE = """
    SELECT table_name, column_name, data_type || coalesce(character_maximum_length::text, ''),
           is_nullable || coalesce(column_default, '')
      FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), '' FROM pg_constraint
     WHERE connamespace = 'public'::regnamespace AND conrelid <> 0 AND contype <> 'n'
    UNION ALL
    SELECT tablename, indexname, indexdef, '' FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL
    SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid), tgenabled::text FROM pg_trigger
     WHERE NOT tgisinternal
    UNION ALL
    SELECT 'function', proname, md5(prosrc), '' FROM pg_proc
     WHERE pronamespace = 'public'::regnamespace
"""
Rows = dict[str, list[str]]
Columns = dict[str, list[str]]


@contextmanager
def copied_database(template: str) -> Iterator[None]:
    """Work on a new copy of a database, and drop it at the end."""
    name, before = f"upgrade_{os.getpid()}", connection.settings_dict["NAME"]
    _outside(f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name} TEMPLATE {template}")
    connection.settings_dict["NAME"] = name
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict["NAME"] = before
        _outside(f"DROP DATABASE {name} WITH (FORCE)")


def _outside(*statements: str) -> None:
    connection.close()
    with connection._nodb_cursor() as cursor:  # type: ignore[attr-defined]
        for statement in statements:
            cursor.execute(statement)


def migrate_to_baseline() -> None:
    """Bring the schema to that of the previous release."""
    MigrationExecutor(connection).migrate(list(BASELINE.items()))


def migrate_to_head() -> None:
    """Bring the schema to that of this release, and the roles to its privileges, as an upgrade
    does."""
    executor = MigrationExecutor(connection)
    executor.migrate(executor.loader.graph.leaf_nodes())
    apply_roles(connection.connection)


def shape() -> dict[str, str]:
    """Return a digest of each table: columns, constraints, indexes and triggers."""
    found: dict[str, list[str]] = defaultdict(list)
    with connection.cursor() as cursor:
        cursor.execute(_SHAPE)
        for table, *parts in cursor.fetchall():
            found[table].append("\0".join(parts))
    return {
        table: hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:16]
        for table, parts in sorted(found.items())
    }


def known_shape() -> dict[str, str]:
    """Return the digests of the previous release."""
    return dict(line.split() for line in KNOWN.read_text().splitlines() if line[:1] != "#")  # type: ignore[misc]


def rows(columns: Columns | None = None) -> tuple[Columns, Rows]:
    """Return the columns of every table, or those given, and all rows, each as one text."""
    found: Rows = {}
    with connection.cursor() as cursor:
        if columns is None:
            columns = {
                table: [
                    each.name
                    for each in connection.introspection.get_table_description(cursor, table)
                ]
                for table in connection.introspection.table_names(cursor)
                if table != "django_migrations"
            }
        for table, names in columns.items():
            query = sql.SQL("SELECT ROW({})::text FROM {} ORDER BY 1").format(
                sql.SQL(", ").join(map(sql.Identifier, names)), sql.Identifier(table)
            )
            cursor.execute(query)
            found[table] = [row for (row,) in cursor.fetchall()]
    return columns, found


def _write() -> None:
    from assay.local.services import Postgres

    with tempfile.TemporaryDirectory(prefix="assay-previous-") as scratch:
        Path(scratch).chmod(0o755)
        postgres = Postgres(Path(scratch) / "postgres")
        postgres.configure_for_tests()
        os.environ["DATABASE_URL"] = postgres.url("postgres")

        import django

        django.setup()
        with connection._nodb_cursor() as cursor:  # type: ignore[attr-defined]
            cursor.execute("CREATE DATABASE previous")
        connection.close()
        connection.settings_dict["NAME"] = "previous"
        # Other packages' tables first: ours refer to them.
        executor = MigrationExecutor(connection)
        others = [key for key in executor.loader.graph.leaf_nodes() if key[0] not in BASELINE]
        executor.migrate([*others, *BASELINE.items()])
        lines = [f"{table} {digest}\n" for table, digest in shape().items()]
        KNOWN.write_text("# Written by tests/upgrades.py.\n" + "".join(lines))
        connection.close()
        postgres.stop()


if __name__ == "__main__":
    _write()
