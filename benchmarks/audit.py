"""Audit events per second with concurrent sealing, an event's wait for its seal, and the time that
an event adds to the transaction of a change.

The subject is `audit_record` in its own transaction, in concurrent processes, while another process
seals; the reference is a plain INSERT of an equal row into an equal table without guards, sealer or
hashing, by the same processes. Rounds are interleaved.
"""

from __future__ import annotations

import sys
import time
from statistics import median

from benchmarks.audit_exports import exported
from benchmarks.audit_writers import Writers, sealing
from benchmarks.stores import own_stores
from benchmarks.table import Row, show

WRITERS = (1, 4)
EVENTS = 4000
BACKLOG = 20_000

_LAG_MS = """
SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY lag)
FROM (
    SELECT 1000 * extract(epoch FROM (
        SELECT created_at FROM governance_auditcheckpoint
        WHERE tree_size > sequence ORDER BY tree_size LIMIT 1
    ) - occurred_at) AS lag
    FROM governance_auditevent WHERE sequence >= %s
) AS lags
"""


def run(*, quick: bool = False) -> list[Row]:
    """Start separate stores, measure, and stop them. Django must not be set up yet."""
    with own_stores():
        return _measure(rounds=2 if quick else 5)


def _measure(*, rounds: int) -> list[Row]:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE plain_event (LIKE governance_auditevent INCLUDING ALL)")
        cursor.execute("CREATE TABLE plain_change (id bigserial PRIMARY KEY, body text)")
    rows = []
    for count in WRITERS:
        writers = Writers(count)
        try:
            rows += _write_rates(writers, rounds)
        finally:
            writers.close()
    rows.append(Row.of("sealing a backlog", "events/s", [_backlog_rate() for _ in range(rounds)]))
    rows.append(Row.of("verifying an export", "events/s", [_verify_rate() for _ in range(rounds)]))
    return rows + exported(min(rounds, 2))


def _write_rates(writers: Writers, rounds: int) -> list[Row]:
    """Measure rates and waits; with one writer, also the cost of an event in a change."""
    who = f"{writers.count} writing"
    ours: list[float] = []
    plain: list[float] = []
    people: list[float] = []
    changes: list[float] = []
    recorded: list[float] = []
    lags: list[list[float]] = []
    for _ in range(rounds):
        plain.append(writers.write("insert", EVENTS)[0])
        with sealing():
            ours.append(_sealed_rate(writers, lags))
            people.append(writers.write("record a person", EVENTS)[0])
            if writers.count == 1:
                changes.append(median(writers.write("change", EVENTS)[1]))
                recorded.append(median(writers.write("change on record", EVENTS)[1]))
    rows = [
        Row.of(f"{who}, each event in its transaction", "events/s", ours, plain),
        Row.of(f"{who}, each event by a person", "events/s", people, plain),
        Row.of(f"{who}: wait for the seal, p50", "ms", [p50 for p50, _ in lags]),
        Row.of(f"{who}: wait for the seal, p99", "ms", [p99 for _, p99 in lags]),
    ]
    if changes:
        rows.append(Row.of("a change with its event, p50", "ms", recorded, changes))
    return rows


def _sealed_rate(writers: Writers, lags: list[list[float]]) -> float:
    """Return events per second while a sealer runs; append the events' waits in ms to `lags`."""
    from django.db import connection

    from governance.audit.models import AuditEvent

    first = AuditEvent.objects.count()
    rate, _ = writers.write("record", EVENTS)
    while AuditEvent.objects.filter(sequence__isnull=True).exists():
        time.sleep(0.02)
    with connection.cursor() as cursor:
        cursor.execute(_LAG_MS, [first])
        lags.append([float(lag) for lag in cursor.fetchone()[0]])
    return rate


def _verify_rate() -> float:
    """Return the events per second of processor time that `assay audit verify` checks."""
    from governance.audit.exports.log import export_lines
    from governance.audit.signing import audit_public_keys
    from governance.audit.verify import verify_export

    lines = list(export_lines())
    started = time.process_time()
    report = verify_export(lines, public_keys=audit_public_keys())
    if not report.ok:
        raise RuntimeError(report.message)
    return report.events / (time.process_time() - started)


def _backlog_rate() -> float:
    """Return the events per second that one sealer seals and publishes from `BACKLOG` events."""
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
