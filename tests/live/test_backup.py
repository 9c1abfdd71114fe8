"""A backup brings an installation back on another database and store, or says why it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import psycopg
import pytest
from django.conf import settings as django_settings
from django.db import connection

from assay.backups.backup import sha256_of
from governance.audit.outside.publishing import publish_pending
from governance.audit.signing import audit_public_keys
from tests.live.celery_worker import ROOT, database_url
from tests.unit.governance.exports_support import write
from tests.unit.workers import company

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]


class Site:
    """The settings of one installation: its database, its store, and the common second place."""

    def __init__(self, folder: Path, database: str, outside: Path, **more: str) -> None:
        self.url = database
        # As in production, where libpq takes the server from its environment.
        name, _, host = database.partition("?host=")
        self.environment = {
            **os.environ,
            "ASSAY_PROCESS": "migrate",
            "DATABASE_URL": name,
            "PGHOST": unquote(host),
            "ASSAY_DATA_DIR": str(folder),
            "ASSAY_STORE_URL": f"file://{folder}/artifacts",
            "ASSAY_AUDIT_PUBLISH_DIR": str(outside),
            "ASSAY_AUDIT_PUBLIC_KEY": audit_public_keys(),
            "PYTHONPATH": str(ROOT),
            **more,
        }

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run `assay COMMAND` there."""
        return subprocess.run(
            [sys.executable, "-m", "assay.cli", *command],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False,
            timeout=300,
        )  # fmt: skip

    def rows_are_none(self) -> bool:
        """Return whether the database has no tables."""
        with psycopg.connect(self.url) as opened:
            found = opened.execute("SELECT FROM pg_tables WHERE schemaname = 'public'").fetchone()
        return found is None

    def rows(self) -> dict[str, int]:
        """Count the rows of every table but those of sessions."""
        with psycopg.connect(self.url, options="-c assay.departments=*") as opened:
            names = opened.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
            ).fetchall()
            counts = {}
            for (name,) in names:
                (count,) = opened.execute(f'SELECT count(*) FROM "{name}"').fetchone() or (0,)  # type: ignore[arg-type]  # noqa: S608
                counts[name] = count
        counts.pop("django_session")
        return counts


@pytest.fixture
def outside(tmp_path: Path, settings: object) -> Path:
    folder = tmp_path / "outside"
    settings.AUDIT_PUBLISH_DIR = folder  # type: ignore[attr-defined]
    return folder


@pytest.fixture
def here(outside: Path) -> Site:
    """The tests' installation, with a stored version and a published log."""
    company.version(company.model("writer", "text-generation"))
    write(20)
    publish_pending()
    return Site(Path(django_settings.DATA_DIR), database_url(), outside)


def elsewhere(tmp_path: Path, outside: Path, name: str, **more: str) -> Site:
    """An installation with an empty database and an empty store."""
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {name}")
        cursor.execute(f"CREATE DATABASE {name}")
    own = database_url().replace(f"/{connection.settings_dict['NAME']}?", f"/{name}?")
    return Site(tmp_path / name, own, outside, **more)


def test_an_installation_comes_back_from_its_backup(
    here: Site, outside: Path, tmp_path: Path
) -> None:
    made = here.run("backup", "make", str(tmp_path / "backups"))
    assert made.returncode == 0, made.stderr
    [backup] = list((tmp_path / "backups").glob("*Z"))
    assert (backup.stat().st_mode & 0o777, backup.parent.stat().st_mode & 0o777) == (0o700, 0o700)

    there = elsewhere(tmp_path, outside, "restored_whole")
    done = there.run("backup", "restore", str(backup))
    assert done.returncode == 0, done.stderr
    assert "events are as they were sealed" in done.stdout
    assert there.rows() == here.rows()
    assert there.run("store", "fsck").returncode == 0

    again = there.run("backup", "restore", str(backup))
    assert again.returncode != 0
    assert "never writes over" in again.stderr

    other = elsewhere(tmp_path, outside, "restored_later")
    write(3)  # The event of the backup itself is the fourth.
    publish_pending()
    refused = other.run("backup", "restore", str(backup))
    assert refused.returncode != 0
    assert "4 events that this backup lacks" in " ".join(refused.stderr.split())
    assert other.rows_are_none()
    accepted = other.run("backup", "restore", str(backup), "--accept-lost-events", "4")
    assert accepted.returncode == 0, accepted.stderr
    assert "4 events were recorded after it and are lost" in " ".join(accepted.stdout.split())


def test_a_backup_that_is_damaged_or_of_other_secrets_is_not_restored(
    here: Site, outside: Path, tmp_path: Path
) -> None:
    here.environment["ASSAY_KEY_PEPPER"] = "the pepper of the installation " * 2
    backups = tmp_path / "backups"
    assert here.run("backup", "make", str(backups)).returncode == 0
    [backup] = list(backups.glob("*Z"))
    assert "pepper of" not in (backup / "backup.json").read_text()
    there = elsewhere(tmp_path, outside, "never_restored")
    assert "ASSAY_KEY_PEPPER" in _refusal(there, backup)
    there.environment["ASSAY_KEY_PEPPER"] = here.environment["ASSAY_KEY_PEPPER"]
    stored = next(each for each in (backups / "store").rglob("*") if each.is_file())
    for file in (stored, backup / "database.dump"):
        file.chmod(0o600)
        file.write_bytes(b"x" * file.stat().st_size)
    assert "database.dump is damaged" in _refusal(there, backup)
    record = json.loads((backup / "backup.json").read_text())
    record["database_sha256"] = sha256_of(backup / "database.dump")
    (backup / "backup.json").chmod(0o600)
    (backup / "backup.json").write_text(json.dumps(record))
    assert "files of the backup are damaged" in _refusal(there, backup)
    (backup / "backup.json").write_text("{}")
    assert "is not a backup that this release can read" in _refusal(there, backup)
    assert there.rows_are_none()


def _refusal(site: Site, backup: Path) -> str:
    refused = site.run("backup", "restore", str(backup))
    assert refused.returncode == 1
    return " ".join(refused.stderr.split())
