"""Lease of a deployment: the time until which the controller confirms that it may serve.

Gateways and engine workers require it in addition to their own verdict, so that all serving ends
within `ASSAY_SERVING_LEASE_S` if the controller is dead, stuck or cut off.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from django.conf import settings
from django.db import connection
from django.db.models.expressions import Combinable
from django.db.models.functions import Now

from workers.deployments.judging import Judge, Judged
from workers.deployments.states import LIVE
from workers.dispatch import wake_engines

# Leases that one statement renews at most, or a third of all if that is more. After a pause of the
# controller all are due at once; the next rounds renew the others, long before they end.
RENEWED_AT_ONCE = 1000
# A lease is renewed when less than two thirds of it are left, and one of a deployment that may not
# serve for now is ended. Those that end are first, then those that end soonest.
_RENEW = """
WITH due AS (
    SELECT l.deployment_id, v.may, l.servable_until <= statement_timestamp() AS lapsed
      FROM unnest(%(ids)s::bigint[], %(may)s::boolean[]) AS v(id, may)
      JOIN workers_servinglease l ON l.deployment_id = v.id
      JOIN workers_deployment d ON d.id = v.id AND d.state = ANY (%(live)s)
     WHERE CASE WHEN v.may THEN l.servable_until - make_interval(secs => %(lease)s * 2.0 / 3)
                                < statement_timestamp()
                ELSE l.servable_until > statement_timestamp() END
     ORDER BY v.may, l.servable_until LIMIT %(most)s
)
UPDATE workers_servinglease l
   SET servable_until = statement_timestamp()
                        + make_interval(secs => CASE WHEN due.may THEN %(lease)s ELSE 0 END)
  FROM due WHERE l.deployment_id = due.deployment_id
RETURNING due.may, due.lapsed
"""


def lease_end() -> Combinable:
    """Return the end of a lease that begins now, by the database clock."""
    return Now() + timedelta(seconds=settings.SERVING_LEASE_S)


def leases_renew(judge: Judge | None = None) -> int:
    """Renew the leases of live deployments whose release may serve, and end the leases of those
    that may not serve for now. Return the number of renewed leases.

    The controller passes the judge that remembers the verdicts of its last round.
    """
    renewed = 0
    wakes = False
    for verdicts in (judge or Judge()).rounds():
        rows = _renew(verdicts)
        renewed += sum(may for may, _lapsed in rows)
        # Ended, or over and renewed.
        wakes = wakes or any(lapsed or not may for may, lapsed in rows)
    if wakes:
        wake_engines()
    return renewed


def _renew(verdicts: Mapping[int, Judged]) -> list[tuple[bool, bool]]:
    ids = list(verdicts)
    if not ids:
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            _RENEW,
            {
                "ids": ids,
                "may": [not verdicts[pk].refused for pk in ids],
                "live": list(LIVE),
                "lease": settings.SERVING_LEASE_S,
                "most": max(RENEWED_AT_ONCE, -(-len(ids) // 3)),
            },
        )
        return list(cursor.fetchall())
