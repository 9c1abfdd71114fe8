"""`assay backup restore`: restoration into an empty installation, and verification of the result.

Until it has finished, the database is marked (`database.begin`), and processes have no privileges
on its tables. After any interruption, run the same command again.
"""

from __future__ import annotations

import hmac
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from django.contrib.sessions.models import Session
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from assay.backups import database
from assay.backups.backup import (
    DUMP,
    POOL,
    Backup,
    fingerprints,
    mac_of,
    read,
    record_event,
    sha256_of,
)
from assay.backups.database import BackupFailed
from assay.backups.outside import SecondPlaceState, compare_second_place
from assay.database_roles.apply import is_unfinished
from governance.audit.checkpoint import Verifier
from governance.audit.selectors import verify_restored
from governance.audit.signing import audit_public_keys
from governance.audit.tree.merkle import EMPTY_ROOT
from governance.audit.verify import VerificationReport
from governance.errors import Unavailable
from governance.keys.models import ApiKey, PlaygroundToken
from governance.people.models import OneTimeLink
from registry.storage import store
from registry.storage.backend import Entry
from workers.deployments.models import ServingLease
from workers.nodes.models import NodeSession, NodeToken
from workers.storage.copying import store_copy
from workers.storage.inspection import store_faults

Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Restored:
    """A finished restoration.

    Attributes:
        lost: number of events in the second place that the restored log lacks.
        second_place: name of the second place; empty without one.
        silent: witnesses that did not report what they cosigned, with the reason.
        missing: number of files that rows name but the store lacks.
    """

    backup: Backup
    files: int
    lost: int
    second_place: str
    silent: tuple[str, ...]
    missing: int
    log: VerificationReport


def restore(
    folder: Path,
    *,
    accept_lost_events: int = 0,
    other_secrets: bool = False,
    no_second_place: bool = False,
    step: Step = lambda name: None,
    progress: Callable[[Entry], None] | None = None,
) -> Restored:
    """Restore the backup in `folder`. Run it as the owner of the tables.

    Args:
        folder: folder of one backup, next to the pool of files.
        accept_lost_events: maximum number of events after the backup that may be lost.
        other_secrets: restore even if this installation has other secrets.
        no_second_place: the operator states that the audit log had no second place.
        step: called with the name of each step before it begins.
        progress: called with each file of the store.

    Raises:
        BackupFailed: the database is not empty or in use, the backup is damaged or forged, secrets
            differ, the second place is missing or contradicts it, more events would be lost, or the
            restored log is not the one that was signed.
        StoreUnavailable: the store does not answer.
    """
    step("Check the backup")
    verifier = _verifier()
    record = read(folder)
    _require_same_secrets(record, other_secrets=other_secrets)
    with database.alone():
        _require_empty()
        outside = compare_second_place(record, verifier, no_second_place=no_second_place)
        _require_accepted(outside, accept_lost_events)
        _require_dump(folder / DUMP, record)
        step("Copy the files")
        files = _copy_files(folder.parent / POOL, record, progress)
        step("Clear the database")
        database.begin()
        step("Restore the database")
        database.restore(folder / DUMP)
        step("Migrate the database")
        call_command("migrate", verbosity=0)
        step("End sessions and serving")
        _end_what_was_running()
        step("Verify the audit log")
        log = _verified(record, outside)
        step("Look for missing files")
        missing = sum(fault.kind == "missing" for fault in store_faults(hashes=False))
        step("Give the processes their privileges")
        place = "" if outside.place is None else outside.place.name
        with transaction.atomic():
            record_event(
                "installation:restore",
                {"backup": record.made_at, "lost_events": outside.lost, "second_place": place},
            )
            database.finish()
            call_command("apply_database_roles", stdout=io.StringIO())
        return Restored(record, files, outside.lost, place, outside.silent, missing, log)


def _verifier() -> Verifier:
    """Return the verifier of this installation's audit log; the restoration requires it."""
    try:
        return Verifier.from_text(audit_public_keys())
    except (Unavailable, ImproperlyConfigured) as error:
        raise BackupFailed(
            f"The audit log could not be verified after the restoration: {error}",
            hint="Set ASSAY_AUDIT_PUBLIC_KEY to the key of the installation that made the backup.",
        ) from error


def _require_empty() -> None:
    with connection.cursor() as cursor:
        if is_unfinished(cursor) or database.is_empty():
            return
    raise BackupFailed(
        "The database has tables, and a restoration never writes over any.",
        hint="Create an empty database, and name it in DATABASE_URL. If a restoration into this "
        "one has finished, its audit log has the event installation:restore.",
    )


def _require_same_secrets(record: Backup, *, other_secrets: bool) -> None:
    here = fingerprints()
    differ = sorted(
        name for name, fingerprint in record.secrets.items() if here.get(name) != fingerprint
    )
    if other_secrets:
        return
    if differ:
        raise BackupFailed(
            f"These secrets are missing or differ from those of the backup: {', '.join(differ)}. "
            "Its API keys, sessions or signatures would be invalid.",
            hint="Use the secrets of that installation, or add --other-secrets.",
        )
    if not hmac.compare_digest(record.mac, mac_of(record)):
        raise BackupFailed(
            "The record of the backup was changed: its MAC does not match ASSAY_KEY_PEPPER.",
            hint="Restore another backup. --other-secrets restores it anyway; then only its audit "
            "log is verified.",
        )


def _require_accepted(outside: SecondPlaceState, accepted: int) -> None:
    if outside.lost > accepted:
        raise BackupFailed(
            f"The second place of the audit log, or a witness, has {outside.lost:,} events that "
            "this backup lacks. Everything they revoked, recalled or refused would be in force "
            "again.",
            hint="Restore a newer backup. If there is none, find these events in your SIEM, "
            f"exports or mail, and run this with --accept-lost-events {outside.lost}.",
        )


def _require_dump(dump: Path, record: Backup) -> None:
    server = database.server_version()
    if server < record.postgresql:
        raise BackupFailed(
            f"The backup is of PostgreSQL {record.postgresql}, and this server is {server}.",
            hint=f"Restore it to PostgreSQL {record.postgresql} or newer.",
        )
    if not dump.is_file() or sha256_of(dump) != record.database_sha256:
        raise BackupFailed(f"{dump} is damaged: its SHA-256 differs from the record.")


def _copy_files(pool: Path, record: Backup, progress: Callable[[Entry], None] | None) -> int:
    copied = store_copy(source=pool.resolve().as_uri(), target=store.store_url(), progress=progress)
    if copied.failed:
        raise BackupFailed(
            f"{len(copied.failed):,} files of the backup are damaged, such as {copied.failed[0]}. "
            "The database was not restored."
        )
    if copied.entries < record.files:
        raise BackupFailed(
            f"{pool} has {copied.entries:,} files, and the backup covers {record.files:,}. The "
            "database was not restored.",
            hint="Recover the complete folder of backups first.",
        )
    return copied.entries


def _verified(record: Backup, outside: SecondPlaceState) -> VerificationReport:
    if not record.events:
        return VerificationReport(True, 0, None, "The audit log is empty.", EMPTY_ROOT.hex())
    notes = [note for note in (record.checkpoint, outside.note) if note]
    log = verify_restored(checkpoints=notes, tiles=outside.place)
    if not log.ok:
        raise BackupFailed(
            f"The restored audit log is not the one that was signed: {log.message}",
            hint="No process can use this database. Restore another backup into it, or drop it.",
        )
    return log


def _end_what_was_running() -> None:
    """End all serving until a controller has confirmed it again. Also end one-time and short-lived
    credentials, which may have been used since: sessions, links, tokens and identity proofs."""
    now, open_ones = timezone.now(), Q(used_at=None, revoked_at=None)
    ServingLease.objects.update(servable_until=Now())
    Session.objects.all().delete()
    PlaygroundToken.objects.all().delete()
    NodeSession.objects.filter(ended_at=None).delete()
    OneTimeLink.objects.filter(open_ones).update(revoked_at=now)
    NodeToken.objects.filter(open_ones).update(revoked_at=now)
    ApiKey.objects.exclude(proof_method="").update(proof_method="", proved_at=None)
