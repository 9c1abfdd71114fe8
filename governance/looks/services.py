"""Record looks at objects, and return when a person last looked."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import connection
from django.utils import timezone

from governance.looks.models import Look, LookKind
from governance.principals import Principal

# Looks with less time between them are one.
PAUSE = timedelta(minutes=30)
# Older looks are forgotten.
KEPT = timedelta(days=180)
# One statement, because two pages that one click opened may both record the first look, and because
# it is part of showing a page.
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
    """Record that a person looks at an object, and return the end of their look before; None at the
    first look.

    Not audited: only the person sees it. The caller has checked that they may see the object.
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
                "forgotten": now - KEPT,
            },
        )
        since: datetime | None = cursor.fetchone()[0]
    return since


def looks_latest(*, actor: Principal, most: int) -> list[Look]:
    """Return the person's latest looks, newest first."""
    if actor.person_id is None:
        return []
    return list(Look.objects.filter(person_id=actor.person_id).order_by("-seen_at")[:most])
