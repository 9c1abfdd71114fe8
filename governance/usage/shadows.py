"""Sums over the copies of requests that shadows answered, for each pair of releases."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from django.db import connection

from governance.database.locks import lock
from governance.usage.models import BilledRequest, ShadowTotal
from governance.usage.records import Compared, UsageEntry

_SUMS = (
    "copies",
    "failed",
    "against_failed",
    "answered",
    "total_ms",
    "against_ms",
    "units",
    "against_units",
    "cost_micro",
    "against_cost_micro",
    "compared",
    "agreement",
)
_COLUMNS = ("deployment", "department", "release", "against", "unit", "measure", *_SUMS)
_ADD = f"""
INSERT INTO {ShadowTotal._meta.db_table} AS t ({", ".join(_COLUMNS)}, first_at, last_at)
VALUES ({", ".join(["%s"] * (len(_COLUMNS) + 2))})
ON CONFLICT (release, against, deployment) DO UPDATE SET
    {", ".join(f"{name} = t.{name} + excluded.{name}" for name in _SUMS)},
    measure = CASE excluded.measure WHEN '' THEN t.measure ELSE excluded.measure END,
    last_at = greatest(t.last_at, excluded.last_at)
"""  # noqa: S608


def shadow_totals_add(entries: Iterable[UsageEntry]) -> None:
    """Add the copies among `entries` that the ledger does not have yet. Call it in the transaction
    that records them, before they are recorded."""
    copies = {
        entry.request_id: (entry, entry.compared) for entry in entries if entry.compared is not None
    }
    if not copies:
        return
    # Another collector may have the same copies, if this one took so long that it seemed dead.
    lock("shadow-totals")
    billed = BilledRequest.objects.filter(request_id__in=copies)
    for request_id in billed.values_list("request_id", flat=True):
        del copies[request_id]
    rows = [_row(entry, compared) for entry, compared in copies.values()]
    with connection.cursor() as cursor:
        cursor.executemany(_ADD, rows)


def _row(entry: UsageEntry, compared: Compared) -> tuple[Any, ...]:
    failed = entry.outcome != "ok"
    both = not (failed or compared.failed)
    pair = (
        (entry.total_ms, compared.total_ms),
        (entry.units, compared.units),
        (entry.cost_micro, compared.cost_micro),
    )
    sums = [value for sides in pair for value in (sides if both else (0, 0))]
    agreement = compared.agreement if both else None
    at = datetime.fromtimestamp(entry.occurred_at, tz=UTC)
    return (
        entry.deployment,
        entry.department,
        entry.release,
        compared.against,
        entry.unit,
        "" if agreement is None else compared.measure,
        1,
        int(failed),
        int(compared.failed),
        int(both),
        *sums,
        int(agreement is not None),
        agreement or 0.0,
        at,
        at,
    )


def shadow_evidence(row: ShadowTotal) -> dict[str, Any]:
    """Return the sums of one pair of releases, with means, as JSON."""
    answered = row.answered
    return {
        "release": row.release,
        "against": row.against,
        "deployment": row.deployment,
        "first_at": row.first_at.isoformat(timespec="seconds"),
        "last_at": row.last_at.isoformat(timespec="seconds"),
        "copies": row.copies,
        "failed": row.failed,
        "against_failed": row.against_failed,
        "answered": answered,
        "mean_ms": round(row.total_ms / answered) if answered else None,
        "against_mean_ms": round(row.against_ms / answered) if answered else None,
        "unit": row.unit,
        "units": row.units,
        "against_units": row.against_units,
        "cost_micro": row.cost_micro,
        "against_cost_micro": row.against_cost_micro,
        "measure": row.measure,
        "compared": row.compared,
        "agreement": round(row.agreement / row.compared, 4) if row.compared else None,
    }
