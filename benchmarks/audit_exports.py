"""Events per second of exporting selected events with proofs, and of verifying the export."""

from __future__ import annotations

import threading
import time
from typing import Any

from benchmarks.table import Row

SELECTED = 20_000
ACTION = "bench:export"


def exported(rounds: int) -> list[Row]:
    """Export `SELECTED` events of one person from the existing log. Django must be set up."""
    from governance.audit.exports.models import ExportFormat

    actor = _auditor()
    _record(actor)
    rows = []
    for kind in ExportFormat:
        rates, verified = zip(
            *(_export_and_verify(actor, kind) for _ in range(rounds)), strict=True
        )
        rows.append(Row.of(f"exporting with proofs, {kind}", "events/s", list(rates)))
        rows.append(Row.of(f"verifying that, {kind}", "events/s", list(verified)))
    return rows


def _auditor() -> Any:
    from governance.people.models import Person, RoleAssignment
    from governance.people.selectors import principal_for_person
    from governance.policy.services import policy_bootstrap

    policy_bootstrap()
    person = Person.objects.create(email="auditor@example.org", name="Bench Auditor")
    RoleAssignment.objects.create(person=person, role="auditor")
    return principal_for_person(person)


def _record(actor: Any) -> None:
    from django.db import transaction

    from governance.audit.sealer import seal_once
    from governance.audit.services import AuditEntry, Subject, audit_record_many

    entry = AuditEntry(actor, ACTION, Subject("model", "7", "docstring-writer"))
    with transaction.atomic():
        audit_record_many(entry for _ in range(SELECTED))
    while seal_once():
        pass


def _export_and_verify(actor: Any, kind: str) -> tuple[float, float]:
    """Return events per second of the export, and of verification in processor time."""
    from assay.cli.audit_exports import check_file
    from governance.audit.exports.run import export_next
    from governance.audit.exports.services import audit_export_request, export_file
    from governance.audit.signing import audit_public_keys

    export = audit_export_request(actor=actor, filters={"action": ACTION}, format=kind)
    started = time.perf_counter()
    export_next(threading.Event())
    export_s = time.perf_counter() - started
    export.refresh_from_db()
    if export.rows != SELECTED:
        raise RuntimeError(export.error or f"{export.rows} events were exported.")
    file = export_file(export)
    started = time.process_time()
    report = check_file(file, audit_public_keys(), [], None)
    verified = time.process_time() - started
    file.unlink()
    if not report.ok:
        raise RuntimeError(report.message)
    return export.rows / export_s, export.rows / verified
