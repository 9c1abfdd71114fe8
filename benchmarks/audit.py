"""Audit events per second, sealed while they are written, and how long an event waits for its seal.

The subject is `audit_record` in a transaction of its own, with a sealer running beside it; the
reference is a plain INSERT of an equal row into an equal table without guards, sealer or hashing,
over the same connections. Rounds are interleaved.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

from benchmarks.stores import own_stores
from benchmarks.table import Row, show

THREADS = (1, 4)
EVENTS = 1000
BACKLOG = 20_000

_LAG_MS = """
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY lag), percentile_cont(0.95) WITHIN GROUP (ORDER BY lag)
FROM (
    SELECT 1000 * extract(epoch FROM (
        SELECT created_at FROM governance_auditcheckpoint
        WHERE tree_size > sequence ORDER BY tree_size LIMIT 1
    ) - occurred_at) AS lag
    FROM governance_auditevent WHERE sequence >= %s
) AS lags
"""  # noqa: E501 (SQL)


def run(*, quick: bool = False) -> list[Row]:
    """Start stores of its own, measure, stop them. Django must not be set up yet."""
    with own_stores():
        return _measure(rounds=2 if quick else 5)


def _measure(*, rounds: int) -> list[Row]:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE plain_event (LIKE governance_auditevent INCLUDING ALL)")
    rows = []
    lags: list[tuple[float, float]] = []
    for threads in THREADS:
        ours: list[float] = []
        plain: list[float] = []
        for _ in range(rounds):
            plain.append(_rate(_insert_plainly, threads))
            ours.append(_sealed_rate(threads, lags))
        rows.append(Row.of(f"{threads} writing, each in its transaction", "events/s", ours, plain))
    rows.append(Row.of("wait for the seal, median", "ms", [median for median, _ in lags]))
    rows.append(Row.of("wait for the seal, 95 %", "ms", [high for _, high in lags]))
    rows.append(Row.of("sealing a backlog", "events/s", [_backlog_rate() for _ in range(rounds)]))
    rows.append(Row.of("verifying an export", "events/s", [_verify_rate() for _ in range(rounds)]))
    return rows


def _verify_rate() -> float:
    """Events per second of processor time that `assay audit verify` checks in one process."""
    from governance.audit.export import export_lines
    from governance.audit.signing import audit_public_keys
    from governance.audit.verify import verify_export

    lines = list(export_lines())
    started = time.process_time()
    report = verify_export(lines, public_keys=audit_public_keys())
    if not report.ok:
        raise RuntimeError(report.message)
    return report.events / (time.process_time() - started)


def _rate(write: Callable[[int], None], threads: int) -> float:
    """Rows per second of `threads` threads that write `EVENTS` rows together."""
    share = EVENTS // threads
    workers = [threading.Thread(target=_and_close, args=(write, share)) for _ in range(threads)]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return share * threads / (time.perf_counter() - started)


def _and_close(write: Callable[[int], None], count: int) -> None:
    from django.db import connection

    try:
        write(count)
    finally:
        connection.close()


def _sealed_rate(threads: int, lags: list[tuple[float, float]]) -> float:
    """As `_rate` for audit events, while a sealer runs; adds their waits in ms to `lags`."""
    from django.db import connection

    from governance.audit import sealer
    from governance.audit.models import AuditEvent

    first = AuditEvent.objects.count()
    stop = threading.Event()
    sealing = threading.Thread(target=sealer.run, args=(stop,))
    sealing.start()
    try:
        rate = _rate(_record, threads)
        while AuditEvent.objects.filter(sequence__isnull=True).exists():
            time.sleep(0.02)
    finally:
        stop.set()
        sealing.join()
    with connection.cursor() as cursor:
        cursor.execute(_LAG_MS, [first])
        median, high = cursor.fetchone()
    lags.append((float(median), float(high)))
    return rate


def _record(count: int) -> None:
    from django.db import transaction

    from governance.audit.services import Subject, audit_record
    from governance.principals import service_principal

    actor, subject = service_principal("bench"), Subject("model", "7", "docstring-writer")
    for _ in range(count):
        with transaction.atomic():
            audit_record(actor=actor, action="model:create", subject=subject, department="clinical")


def _insert_plainly(count: int) -> None:
    from django.db import connection, transaction

    names = (
        "occurred_at, actor_kind, actor_id, actor_name, department, action, outcome, subject_type, "
        "subject_id, subject_name, reason, request_id, delivery, canonical, leaf_hash"
    )
    sql = (
        f"INSERT INTO plain_event ({names}) VALUES (now(), 'service', 'bench', 'bench', "  # noqa: S608
        "'clinical', 'model:create', 'allowed', 'model', '7', 'docstring-writer', '', '', '', "
        "%s, %s)"
    )
    for _ in range(count):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(sql, [os.urandom(460), os.urandom(32)])


def _backlog_rate() -> float:
    """Events per second that one sealer seals and publishes when `BACKLOG` wait."""
    from django.db import transaction

    from governance.audit.sealer import seal_once
    from governance.audit.services import AuditEntry, Subject, audit_record_many
    from governance.principals import service_principal

    entry = AuditEntry(service_principal("bench"), "model:create", Subject("model", "7", "m"))
    with transaction.atomic():
        audit_record_many(entry for _ in range(BACKLOG))
    started = time.perf_counter()
    while seal_once():
        pass
    return BACKLOG / (time.perf_counter() - started)


if __name__ == "__main__":
    show("Audit log", "plain INSERT", run(quick="--quick" in sys.argv))
