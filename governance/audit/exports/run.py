"""The controller's loop that creates exports of selected events, one at a time.

The row in the database decides: the process that creates an export holds its lease and renews it
with every page. If a controller was killed, its lease expires: the export starts again with the
next fence number, and the old files are deleted.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

from django.db import close_old_connections, transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone

from governance.audit.exports.models import AuditExport, ExportFormat, ExportState
from governance.audit.exports.selection import BadSelection
from governance.audit.exports.selection_csv import pack
from governance.audit.exports.services import (
    RETENTION,
    export_file,
    export_lock,
    export_move,
    export_subject,
    exportable_events,
    exports_folder,
    may_export,
    words_for,
)
from governance.audit.exports.write import write_selection
from governance.audit.selectors import latest_checkpoint
from governance.audit.services import audit_record
from governance.audit.signing import audit_public_keys
from governance.database.locks import lock
from governance.errors import DomainError
from governance.people.selectors import principal_for_person
from governance.principals import (
    RequestContext,
    background,
    request_context,
    service_principal,
)

logger = logging.getLogger(__name__)

LEASE_S = 60
IDLE_S = 1.0
TIDY_S = 60.0
MAX_ATTEMPTS = 3
_CONTROLLER = service_principal("controller")
# Rows of exports without a file are kept for this long.
LISTED_FOR = timedelta(days=30)
PACKED_AT_ONCE = 500


class Stopped(Exception):
    """Export that was canceled or taken by another process, or end of this process."""


def run(stop: threading.Event) -> None:
    """Create requested exports and delete expired ones until `stop` is set."""
    tidy_at = 0.0
    while not stop.is_set():
        close_old_connections()
        if time.monotonic() >= tidy_at:
            exports_tidy()
            tidy_at = time.monotonic() + TIDY_S
        if not export_next(stop):
            stop.wait(IDLE_S)


def export_next(stop: threading.Event) -> bool:
    """Create the export that has waited longest; return False if none waits."""
    export = export_claim()
    if export is None:
        return False
    try:
        _make(export, stop)
    except Stopped:
        _delete_files(export)
        if stop.is_set():
            _give_back(export)
    except OSError as error:
        logger.warning("Export %s could not be written: %s", export.pk, error)
        _fail(export, words_for(error))
    except DomainError as error:
        _fail(export, f"{error.message} {error.hint}".strip())
    except BadSelection as error:
        _fail(export, f"The written file does not verify: {error.message}")
    return True


def export_claim() -> AuditExport | None:
    """Claim the oldest export that is queued or has an expired lease; None if there is none, or
    while another export runs."""
    under_way = (ExportState.QUEUED, ExportState.RUNNING)
    if not AuditExport.objects.filter(state__in=under_way).exists():
        return None
    with transaction.atomic():
        # Serializes claims, so that only one export runs at a time.
        lock("exports")
        if AuditExport.objects.filter(state=ExportState.RUNNING, lease_until__gte=Now()).exists():
            return None
        waiting = Q(state=ExportState.QUEUED) | Q(state=ExportState.RUNNING, lease_until__lt=Now())
        rows = AuditExport.objects.select_for_update(skip_locked=True, of=("self",))
        export = rows.filter(waiting).order_by("id").first()
        if export is None:
            return None
        if export.fence >= MAX_ATTEMPTS:
            export.state = ExportState.RUNNING
            export_move(
                export,
                ExportState.FAILED,
                error=f"Started {MAX_ATTEMPTS} times; the process ended each time.",
                finished_at=timezone.now(),
            )
            return None
        # Not a transition of the state machine if the export was running under an expired lease.
        AuditExport.objects.filter(pk=export.pk).update(
            state=ExportState.RUNNING,
            fence=F("fence") + 1,
            lease_until=Now() + timedelta(seconds=LEASE_S),
            searched=0,
            rows=0,
            packed=0,
        )
    return AuditExport.objects.select_related("person").get(pk=export.pk)


def exports_tidy() -> None:
    """Delete the files of expired and abandoned exports, and old rows."""
    expired = AuditExport.objects.filter(state=ExportState.DONE, expires_at__lte=Now())
    for pk in expired.values_list("pk", flat=True)[:1000]:
        with transaction.atomic():
            export = export_lock(pk)
            if export.state == ExportState.DONE:
                export_move(export, ExportState.EXPIRED)
    ended = (ExportState.FAILED, ExportState.CANCELED, ExportState.EXPIRED)
    old = AuditExport.objects.filter(state__in=ended, created_at__lt=timezone.now() - LISTED_FOR)
    old.delete()
    folder = exports_folder()
    # List files before the rows are read: another controller may start an export in between.
    files = list(folder.iterdir()) if folder.is_dir() else []
    rows = AuditExport.objects.filter(state__in=(ExportState.RUNNING, ExportState.DONE))
    names = {f"{pk}-{fence}" for pk, fence in rows.values_list("pk", "fence")}
    for path in files:
        if path.name.partition(".")[0] not in names:
            path.unlink(missing_ok=True)


def _make(export: AuditExport, stop: threading.Event) -> None:
    context = RequestContext(client_address=export.address)
    token = request_context.set(context)
    try:
        # With the person's current roles: they may have lost access since the request.
        actor = principal_for_person(export.person)
        may_export(actor, export.filters)
        events = exportable_events(actor, export.filters)
    finally:
        request_context.reset(token)
    head = latest_checkpoint()
    _renew(export, stop, tree_size=head.tree_size if head else 0)
    folder = exports_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    final = export_file(export)
    draft, proof = final.with_suffix(".draft"), final.with_suffix(".proof")
    with _private(proof) as file:
        rows, digest = write_selection(
            file,
            events=events,
            checkpoint=head,
            filters=export.filters,
            export=export.pk,
            beat=lambda searched, rows: _renew(export, stop, searched=searched, rows=rows),
        )
        _flush(file)
    if export.format == ExportFormat.CSV:
        with _private(draft) as file:
            pack(proof, file, step=_Steps(export, stop, rows), public_keys=audit_public_keys())
            _flush(file)
        proof.unlink()
        digest = _digest(draft)
    else:
        proof.rename(draft)
    draft.rename(final)
    _finish(export, rows=rows, sha256=digest, size=final.stat().st_size)


class _Steps:
    """Callback that renews the lease now and then while rows are packed."""

    def __init__(self, export: AuditExport, stop: threading.Event, rows: int) -> None:
        self._export, self._stop, self._rows = export, stop, rows

    def __call__(self, packed: int) -> None:
        if packed % PACKED_AT_ONCE == 0 or packed == self._rows:
            _renew(self._export, self._stop, packed=packed)


def _renew(export: AuditExport, stop: threading.Event, **progress: Any) -> None:
    """Save the progress and renew the lease.

    Raises:
        Stopped: the lease is lost, or `stop` is set.
    """
    renewed = AuditExport.objects.filter(
        pk=export.pk, fence=export.fence, state=ExportState.RUNNING
    ).update(lease_until=Now() + timedelta(seconds=LEASE_S), **progress)
    if not renewed or stop.is_set():
        raise Stopped


def _finish(export: AuditExport, **columns: Any) -> None:
    now = timezone.now()
    with transaction.atomic():
        row = _owned(export)
        if row is None:
            raise Stopped
        export_move(
            row, ExportState.DONE, finished_at=now, expires_at=now + RETENTION, error="", **columns
        )
        with background(f"export-{row.pk}", _CONTROLLER):
            audit_record(
                actor=_CONTROLLER,
                action="audit:finish_export",
                subject=export_subject(row),
                data={**columns, "tree_size": row.tree_size},
            )


def _fail(export: AuditExport, error: str) -> None:
    _delete_files(export)
    with transaction.atomic():
        row = _owned(export)
        if row is None:
            return
        export_move(row, ExportState.FAILED, error=error[:500], finished_at=timezone.now())
        with background(f"export-{row.pk}", _CONTROLLER):
            audit_record(
                actor=_CONTROLLER,
                action="audit:finish_export",
                outcome="failed",
                subject=export_subject(row),
                reason=row.error,
            )


def _give_back(export: AuditExport) -> None:
    """Let another controller start the export at once, without counting an attempt."""
    AuditExport.objects.filter(pk=export.pk, fence=export.fence, state=ExportState.RUNNING).update(
        state=ExportState.QUEUED, fence=F("fence") - 1
    )


def _owned(export: AuditExport) -> AuditExport | None:
    """Return the locked row if this process still has the lease, or None."""
    rows = AuditExport.objects.select_for_update()
    return rows.filter(pk=export.pk, fence=export.fence, state=ExportState.RUNNING).first()


def _private(path: Path) -> BinaryIO:
    """Create a file that only this user may read."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _delete_files(export: AuditExport) -> None:
    for path in exports_folder().glob(f"{export.pk}-{export.fence}.*"):
        path.unlink(missing_ok=True)
