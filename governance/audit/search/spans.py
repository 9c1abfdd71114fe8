"""Convert time spans to the ranges of IDs that can contain their events."""

from __future__ import annotations

from django.db import connection

from governance.audit.models import AuditEvent
from governance.audit.search.filters import EventFilter
from governance.audit.search.index_scan import LAST, Stretch
from governance.audit.search.models import SPAN_WIDTH

_SPANS = """
SELECT min(index), max(index) FROM (
    SELECT index, index - row_number() OVER (ORDER BY index) AS island
    FROM governance_auditspan
    WHERE index BETWEEN %(first)s AND %(last)s AND {conditions}
) AS found GROUP BY island ORDER BY 1 {order} LIMIT %(most)s
"""


def stretches_of(criteria: EventFilter, whole: Stretch, most: int) -> list[Stretch]:
    """Return the first `most` stretches of `whole` that can have events of the filter's time and
    policy.

    There are several only if events were recorded long after they happened, or a clock was wrong.
    """
    conditions = []
    if criteria.since is not None:
        conditions.append("last_at >= %(since)s")
    if criteria.until is not None:
        conditions.append("first_at < %(until)s")
    if criteria.policy_version is not None:
        conditions.append("%(policy)s BETWEEN first_policy AND last_policy")
    if not conditions:
        return [whole] if whole else []
    with connection.cursor() as cursor:
        cursor.execute(
            _SPANS.format(conditions=" AND ".join(conditions), order=whole.order),
            {
                "first": whole.low // SPAN_WIDTH,
                "last": whole.high // SPAN_WIDTH,
                "most": most,
                "since": criteria.since,
                "until": criteria.until,
                "policy": criteria.policy_version,
            },
        )
        spans = [(low * SPAN_WIDTH, (high + 1) * SPAN_WIDTH) for low, high in cursor.fetchall()]
    # Unsealed events are not part of a span yet.
    waiting = AuditEvent.objects.filter(sequence__isnull=True).order_by("pk")
    first_waiting = waiting.values_list("pk", flat=True).first()
    if first_waiting is not None:
        spans.append((first_waiting, LAST))
    stretches = [whole.within(low, high) for low, high in _merged(spans)]
    return [stretch for stretch in stretches[:: -1 if whole.newest_first else 1] if stretch][:most]


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the spans in order, with adjacent ones merged."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(spans):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged
