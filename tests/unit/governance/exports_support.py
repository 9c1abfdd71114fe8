"""A log that exports are made from, and making them as the controller does."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.db import connection, transaction

from governance.audit.exports.models import AuditExport, ExportState
from governance.audit.exports.run import export_next
from governance.audit.exports.selection import verify_selection
from governance.audit.exports.selection_csv import verify_zip
from governance.audit.exports.services import audit_export_request, export_file
from governance.audit.models import AuditEvent
from governance.audit.sealer import seal_once
from governance.audit.services import AuditEntry, Subject, audit_record_many
from governance.audit.signing import audit_public_keys
from governance.audit.verify import VerificationReport
from governance.principals import Principal, service_principal

NEVER = threading.Event()


def write(count: int, *, actor: Principal | None = None, action: str = "model:create") -> None:
    """Record events, and seal everything."""
    entries: Iterable[AuditEntry] = (
        AuditEntry(
            actor or service_principal("writer"),
            action,
            Subject("model", str(number), f"model {number}"),
            reason="because" if number % 3 else "",
            department="clinical" if number % 2 else "",
        )
        for number in range(count)
    )
    with transaction.atomic():
        audit_record_many(entries)
    with connection.cursor() as cursor:
        # As autovacuum does outside of a test's one transaction.
        cursor.execute("ANALYZE governance_auditevent")
    seal()


def write_many(count: int) -> None:
    """The same event over and over, in the time of one: for when only their number matters."""
    write(1, action="model:train")
    columns = ", ".join(
        column.name for column in AuditEvent._meta.fields if column.name not in ("id", "sequence")
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO governance_auditevent ({columns}) SELECT {columns} "  # noqa: S608
            "FROM (SELECT * FROM governance_auditevent ORDER BY id DESC LIMIT 1) AS one, "
            "generate_series(1, %s)",
            [count - 1],
        )
        cursor.execute("ANALYZE governance_auditevent")
    seal()


def seal() -> None:
    while seal_once():
        pass


def made(actor: Principal, format: str = "jsonl", **filters: Any) -> AuditExport:  # noqa: A002
    """An export asked for and made."""
    export = audit_export_request(actor=actor, filters=filters, format=format)
    assert export_next(NEVER)
    export.refresh_from_db()
    assert export.state == ExportState.DONE, export.error
    return export


def checked(path: Path, **given: Any) -> VerificationReport:
    """Return the findings of `assay audit verify`."""
    given = {"public_keys": audit_public_keys(), **given}
    if path.suffix == ".zip":
        return verify_zip(path, **given)
    with path.open("rb") as source:
        return verify_selection(source, **given)


def bytes_of(export: AuditExport) -> bytes:
    return export_file(export).read_bytes()
