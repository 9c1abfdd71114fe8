"""`assay restore`: a backup into an empty installation, and the proof that it is whole.

A backup is the state of a past moment: what was revoked, recalled or refused after it would be in
force again. The copy of the audit log in the second place knows how many events came later, so a
restoration that loses events is refused unless they are named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.db.models.functions import Now

from assay.backups import database
from assay.backups.backup import (
    DUMP,
    POOL,
    Backup,
    fingerprints,
    read,
    record_event,
    sha256_of,
)
from assay.backups.database import BackupFailed
from governance.audit.checkpoint import BadCheckpoint, parse
from governance.audit.exports.log import export_lines
from governance.audit.outside.places import CHECKPOINT, Place
from governance.audit.outside.second_place import second_place
from governance.audit.signing import audit_public_keys
from governance.audit.verify import VerificationReport, verify_export
from registry import store
from registry.storage.backend import Entry
from workers.artifacts.copying import store_copy
from workers.deployments.models import ServingLease


@dataclass(frozen=True, slots=True)
class Restored:
    """A finished restoration. `lost` counts events that the second place knows and it lacks."""

    backup: Backup
    files: int
    lost: int
    log: VerificationReport


def restore(
    folder: Path,
    *,
    accept_lost_events: int = 0,
    other_secrets: bool = False,
    progress: Callable[[Entry], None] | None = None,
) -> Restored:
    """Restore the backup in `folder`. Run it as the owner of the tables.

    Args:
        folder: Of one backup; the pool of files lies next to it.
        accept_lost_events: How many events may be lost that were recorded after the backup.
        other_secrets: Restore although this installation has other secrets.
        progress: Called with each file of the store.

    Raises:
        BackupFailed: the database is not empty, the backup is damaged, secrets differ, more events
            would be lost, or the restored log is not the one that was signed.
        StoreUnavailable: the store does not answer.
    """
    record = read(folder)
    _require_empty()
    _require_same_secrets(record, other_secrets=other_secrets)
    outside = _outside()
    lost = max(0, _size(outside) - record.events)
    if lost > accept_lost_events:
        raise BackupFailed(
            f"The second place of the audit log has {lost:,} events that this backup lacks. What "
            "they revoked, recalled or refused would be in force again.",
            hint="Restore a newer backup. If there is none, read the published events, and run "
            f"this with --accept-lost-events {lost}.",
        )
    dump = folder / DUMP
    if sha256_of(dump) != record.database_sha256:
        raise BackupFailed(f"{dump} is damaged: its SHA-256 is not the one of the record.")
    copied = store_copy(
        source=(folder.parent / POOL).resolve().as_uri(),
        target=store.store_url(),
        progress=progress,
    )
    if copied.failed:
        raise BackupFailed(
            f"{len(copied.failed):,} files of the backup are damaged, such as {copied.failed[0]}. "
            "The database was not restored."
        )
    database.restore(dump)
    call_command("migrate", verbosity=0)
    call_command("apply_database_roles", verbosity=0)
    _end_what_was_running()
    notes = [note for note in (record.checkpoint, "" if lost else outside) if note]
    log = verify_export(export_lines(), public_keys=audit_public_keys(), checkpoints=notes)
    if not log.ok:
        raise BackupFailed(
            f"The restored audit log is not the one that was signed: {log.message}",
            hint="Start nothing on this database. Restore another backup into an empty one.",
        )
    record_event("installation:restore", {"backup": record.made_at, "lost_events": lost})
    return Restored(record, copied.objects + copied.present, lost, log)


def _require_empty() -> None:
    if not database.is_empty():
        raise BackupFailed(
            "The database has tables, and a restoration never writes over any.",
            hint="Create an empty database, and name it in DATABASE_URL.",
        )


def _require_same_secrets(record: Backup, *, other_secrets: bool) -> None:
    here = fingerprints()
    differ = sorted(name for name, known in record.secrets.items() if here.get(name) != known)
    if differ and not other_secrets:
        raise BackupFailed(
            f"These secrets are missing here or not those of the backup: {', '.join(differ)}. Its "
            "API keys, sessions or signatures would not be valid.",
            hint="Use the secrets of that installation, or add --other-secrets.",
        )


def _outside() -> str:
    """Return the checkpoint in the second place; empty without one."""
    place: Place = second_place()
    try:
        data = place.read(CHECKPOINT)
    except OSError as error:
        raise BackupFailed(
            "The second place of the audit log cannot be read, so that it is not known what was "
            f"recorded after the backup: {error}",
            hint="Make it reachable; ASSAY_AUDIT_PUBLISH_URL names it.",
        ) from error
    return "" if data is None else data.decode()


def _size(note: str) -> int:
    if not note:
        return 0
    try:
        return parse(note).size
    except BadCheckpoint as error:
        raise BackupFailed(f"The second place holds no valid checkpoint: {error}") from error


def _end_what_was_running() -> None:
    """End sessions, and all serving until a controller has confirmed it anew."""
    Session.objects.all().delete()
    ServingLease.objects.update(servable_until=Now())
