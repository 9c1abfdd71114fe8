"""`assay backup`: the database, and every file of the store, in one folder.

The folder contains any number of backups. They share a pool of files named by their SHA-256, so
that a later backup copies only new files:

    store/files/ab/abcd…      files of all backups, in the layout of the store
    2026-11-27T174200Z/       one backup: `database.dump` and `backup.json`
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from assay.backups import database
from assay.backups.database import BackupFailed
from assay.database_roles.apply import is_unfinished
from governance.audit.models import AuditCheckpoint
from governance.audit.services import Subject, audit_record
from governance.principals import background, service_principal
from registry.storage import store
from registry.storage.backend import Entry
from workers.measurements.measuring import BACKUP
from workers.measurements.models import Measurement
from workers.storage.copying import CopyResult, store_copy

FORMAT = 1
DUMP, RECORD, POOL = "database.dump", "backup.json", "store"
# Secrets without which restored data cannot be used, or keys and sessions are invalid.
FINGERPRINTED_SECRETS = (
    "ASSAY_SECRET_KEY",
    "ASSAY_KEY_PEPPER",
    "ASSAY_KEY_PEPPER_2",
    "ASSAY_AUDIT_SIGNING_KEY",
)


@dataclass(frozen=True, slots=True)
class Backup:
    """The record of one backup.

    Attributes:
        made_at: in ISO 8601.
        assay: the version of Assay that made it.
        postgresql: the server's major version.
        database_sha256: hash of `database.dump`.
        events: number of sealed audit events in it.
        checkpoint: the signed checkpoint over them; empty without one.
        published: number of them that were in the second place, according to the database.
        own_event: leaf hash, in hexadecimal, of the event that records this backup; the dump does
            not contain it.
        files: number of the store's files in the pool after the backup.
        new_bytes: bytes of files that this backup added to the pool.
        secrets: a fingerprint of each secret that its data needs, by the setting's name.
        mac: MAC of all of these under ASSAY_KEY_PEPPER, in hexadecimal.
    """

    made_at: str
    assay: str
    postgresql: int
    database_sha256: str
    database_bytes: int
    events: int
    checkpoint: str
    published: int
    own_event: str
    files: int
    new_bytes: int
    secrets: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT
    mac: str = ""


def make(folder: Path, *, progress: Callable[[Entry], None] | None = None) -> tuple[Path, Backup]:
    """Back up to a new folder in `folder`; returns it with its record.

    The database comes before the files, because files are stored before the rows that name them. An
    interrupted backup leaves no folder that looks complete; the next backup reuses its files.

    Raises:
        BackupFailed: pg_dump failed, a file of the store is damaged, this process has no
            ASSAY_KEY_PEPPER, or the database is not restored yet.
        StoreUnavailable: the store does not answer.
    """
    _require_whole_database()
    moment = datetime.now(UTC)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    final = folder / moment.strftime("%Y-%m-%dT%H%M%SZ")
    scratch = folder / f".{final.name}.partial"
    scratch.mkdir(mode=0o700)
    try:
        dump = scratch / DUMP
        head, published = _dump(dump)
        copied = store_copy(
            source=store.store_url(), target=(folder / POOL).resolve().as_uri(), progress=progress
        )
        _require_whole(copied)
        events = 0 if head is None else head.tree_size
        data = {"backup": final.name, "events": events}
        record = Backup(
            made_at=moment.isoformat(timespec="seconds"),
            assay=version("assay"),
            postgresql=database.server_version(),
            database_sha256=sha256_of(dump),
            database_bytes=dump.stat().st_size,
            events=events,
            checkpoint="" if head is None else head.note,
            published=published,
            own_event=record_event("installation:backup", data),
            files=copied.entries,
            new_bytes=copied.bytes,
            secrets=fingerprints(),
        )
        record = replace(record, mac=mac_of(record))
        (scratch / RECORD).write_text(json.dumps(asdict(record), indent=2) + "\n")
        for file in scratch.iterdir():
            file.chmod(0o400)
            _sync(file)
        scratch.rename(final)
        _sync(folder)
        # The age of the last backup is a metric.
        Measurement.keep(BACKUP, {"name": final.name})
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return final, record


def _dump(file: Path) -> tuple[AuditCheckpoint | None, int]:
    """Dump the database; return its newest checkpoint, and the number of published events."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT pg_export_snapshot()")
        (snapshot,) = cursor.fetchone()
        heads = AuditCheckpoint.objects.order_by("-tree_size")
        published = heads.filter(published_at__isnull=False).first()
        database.dump(file, snapshot)
        return heads.first(), 0 if published is None else published.tree_size


def record_event(action: str, data: dict[str, Any]) -> str:
    """Record a backup or restoration of the installation in the audit log; returns the leaf hash of
    the event."""
    actor = service_principal("backup")
    with transaction.atomic(), background("backup", actor):
        event = audit_record(
            actor=actor,
            action=action,
            subject=Subject("installation", "assay", "the installation"),
            data=data,
        )
    return bytes(event.leaf_hash).hex()


def mac_of(record: Backup) -> str:
    """Return the MAC of a record, which cannot be computed without the key pepper.

    It covers the whole backup: the record has the digests of dump and audit log, and rows of the
    dump have those of the files.

    Raises:
        BackupFailed: this process does not have the key pepper.
    """
    if not settings.KEY_PEPPERS:
        raise BackupFailed(
            "This process has no ASSAY_KEY_PEPPER, under which backups are authenticated.",
            hint="Run this with the settings of the service migrate.",
        )
    content = {**asdict(record), "mac": ""}
    text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    key = hmac.digest(settings.KEY_PEPPERS[1], b"assay backup record 1", "sha256")
    return hmac.digest(key, text, "sha256").hex()


def read(folder: Path) -> Backup:
    """Return the record of the backup in `folder`.

    Raises:
        BackupFailed: it is not a backup, or has a newer format.
    """
    try:
        data: dict[str, Any] = json.loads((folder / RECORD).read_text())
        record = Backup(**data)
    except (OSError, ValueError, TypeError) as error:
        raise BackupFailed(
            f"{folder} is not a backup that this release can read: {error}.",
            hint="Name the folder of one backup, such as backups/2026-11-27T174200Z.",
        ) from error
    if record.format != FORMAT:
        raise BackupFailed(f"{folder} has format {record.format}; this release reads {FORMAT}.")
    return record


def backups(folder: Path) -> list[tuple[Path, Backup]]:
    """Return the backups in `folder`, newest first."""
    folders = sorted((each.parent for each in folder.glob(f"*/{RECORD}")), reverse=True)
    return [(each, read(each)) for each in folders]


def fingerprints() -> dict[str, str]:
    """Return a fingerprint of each secret of `FINGERPRINTED_SECRETS` that this process has."""
    return {
        name: _fingerprint(secret) for name in FINGERPRINTED_SECRETS if (secret := _secret(name))
    }


def sha256_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _secret(name: str) -> str:
    if path := os.environ.get(f"{name}_FILE"):
        return Path(path).read_text().strip()
    return os.environ.get(name, "")


def _fingerprint(secret: str) -> str:
    return hmac.digest(secret.encode(), b"assay backup 1", "sha256").hex()[:16]


def _require_whole_database() -> None:
    with connection.cursor() as cursor:
        if is_unfinished(cursor):
            raise BackupFailed(
                "A restoration into this database has not ended; it cannot be backed up.",
                hint="Run `assay backup restore` again.",
            )


def _require_whole(copied: CopyResult) -> None:
    if copied.failed:
        raise BackupFailed(
            f"{len(copied.failed):,} files of the store could not be copied, such as "
            f"{copied.failed[0]}.",
            hint="`assay store fsck` reports what they affect.",
        )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
