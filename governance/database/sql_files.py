"""SQL files of migrations: triggers, functions and row-level security."""

from __future__ import annotations

from pathlib import Path

from django.db import migrations


def sql_files(migration: str, *names: str) -> list[migrations.RunSQL]:
    """Return the operations that run `sql/<name>.sql` next to the migration's file.

    A file is frozen with its migration: put later changes into a new file of a new migration.
    """
    folder = Path(migration).with_name("sql")
    return [migrations.RunSQL((folder / f"{name}.sql").read_text("utf-8")) for name in names]
