"""The previous release, and a database of it with rows that today's code has made.

`previous_release.txt` holds the commit of the previous release, or `none` before the first one.
Everything else is read from the repository's history: `.ci/run` fetches it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from psycopg import sql

from assay.database_roles.apply import apply_roles

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "assay": "platform/assay",
    "governance": "governance",
    "registry": "registry",
    "workers": "workers",
}
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


def previous_release() -> str | None:
    """Return the commit of the previous release; None before the first one."""
    commit = Path(__file__).with_name("previous_release.txt").read_text().strip()
    return None if commit == "none" else commit


def last_migrations(commit: str) -> dict[str, str]:
    """Return the last migration of each context in a commit.

    Raises:
        RuntimeError: the commit is not in the history of this checkout.
    """
    last = {}
    for app, folder in FOLDERS.items():
        paths = _git("ls-tree", "--name-only", commit, f"{folder}/migrations/").decode().split()
        names = (Path(path).stem for path in paths if path.endswith(".py"))
        last[app] = max(name for name in names if name[:4].isdecimal())
    return last


def _git(*command: str) -> bytes:
    done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"git {' '.join(command)}: {done.stderr.decode().strip()}. The upgrade tests need the "
            "history of the previous release: git fetch --unshallow --tags"
        )
    return done.stdout


@contextmanager
def copied_database(template: str) -> Iterator[None]:
    """Work on a new copy of a database, and drop it at the end."""
    with _database("upgrade", f"TEMPLATE {template}"):
        yield


@contextmanager
def released_database(commit: str) -> Iterator[None]:
    """Work on an empty database that the code of a commit has migrated, with its roles."""
    with tempfile.TemporaryDirectory(prefix="assay-release-") as folder, _database("release"):
        archive = _git("archive", commit)
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        settings = connection.settings_dict
        url = f"postgresql://{settings['USER']}@/{settings['NAME']}?host={settings['HOST']}"
        # Its own code, before that of this checkout.
        path = os.pathsep.join([folder, f"{folder}/platform"])
        # An installation has its roles' settings in a function, too.
        for command in ("migrate", "apply_database_roles"):
            subprocess.run(
                [sys.executable, "manage.py", command],
                cwd=folder,
                env={**os.environ, "DATABASE_URL": url, "PYTHONPATH": path},
                check=True,
            )
        yield


@contextmanager
def _database(name: str, options: str = "") -> Iterator[None]:
    name, before = f"{name}_{os.getpid()}", connection.settings_dict["NAME"]
    _outside(f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name} {options}")
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


def migrate_to(last: dict[str, str]) -> None:
    """Bring the schema to that after these last migrations."""
    MigrationExecutor(connection).migrate(list(last.items()))


def migrate_to_head() -> None:
    """Bring the schema to that of this release, and the roles to its privileges, as an upgrade
    does."""
    executor = MigrationExecutor(connection)
    executor.migrate(executor.loader.graph.leaf_nodes())
    apply_roles(connection.connection)


def shape() -> dict[str, str]:
    """Return a digest of each table: columns, constraints, indexes and triggers."""
    parts_of: dict[str, list[str]] = defaultdict(list)
    with connection.cursor() as cursor:
        cursor.execute(_SHAPE)
        for table, *parts in cursor.fetchall():
            parts_of[table].append("\0".join(parts))
    return {
        table: hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()
        for table, parts in sorted(parts_of.items())
    }


def rows(columns: Columns | None = None) -> tuple[Columns, Rows]:
    """Return the columns of every table, or those given, and all rows, each as one text."""
    rows_of: Rows = {}
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
            rows_of[table] = [row for (row,) in cursor.fetchall()]
    return columns, rows_of
