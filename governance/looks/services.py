"""Record looks at objects, and return the times of earlier ones."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import connection
from django.utils import timezone

from governance.looks.models import Look, LookKind
from governance.principals import Principal

# Longest time between two page views of one look.
PAUSE = timedelta(minutes=30)
# Older looks are deleted.
RETENTION = timedelta(days=180)
# One statement, because every page view runs it, and two concurrent ones may both record the first
# look.
_RECORD = """
WITH forgotten AS (
    DELETE FROM governance_look WHERE person_id = %(person)s AND seen_at < %(forgotten)s
    AND (kind, reference) <> (%(kind)s, %(reference)s)
)
INSERT INTO governance_look AS look (person_id, kind, reference, seen_at)
VALUES (%(person)s, %(kind)s, %(reference)s, %(now)s)
ON CONFLICT (person_id, kind, reference) DO UPDATE SET
    since = CASE WHEN look.seen_at < %(paused)s THEN look.seen_at ELSE look.since END,
    seen_at = EXCLUDED.seen_at
RETURNING since
"""


def look_record(*, actor: Principal, kind: LookKind, reference: str | int) -> datetime | None:
    """Record a person's look at an object, and return the end of their previous look; None at the
    first look, and for actors that are not people.

    Not audited: only the person sees it. Callers check access to the object.
    """
    if actor.person_id is None:
        return None
    now = timezone.now()
    with connection.cursor() as cursor:
        cursor.execute(
            _RECORD,
            {
                "person": actor.person_id,
                "kind": kind,
                "reference": str(reference),
                "now": now,
                "paused": now - PAUSE,
                "forgotten": now - RETENTION,
            },
        )
        since: datetime | None = cursor.fetchone()[0]
    return since


def looks_latest(*, actor: Principal, most: int) -> list[Look]:
    """Return the person's latest looks, newest first."""
    if actor.person_id is None:
        return []
    return list(Look.objects.filter(person_id=actor.person_id).order_by("-seen_at")[:most])
