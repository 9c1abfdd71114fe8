"""Delete old changes. Readers that come too late notice it and read everything again."""

from __future__ import annotations

from datetime import timedelta

from django.db import connection, transaction

# A reader that was away for less long goes on from where it was. Changes are kept for at most
# twice as long, and until the oldest transaction of their time has ended.
KEPT = timedelta(minutes=10)
_BEGIN = """
INSERT INTO governance_changehorizon (id, deleted, next, taken_at)
VALUES (1, 0, pg_snapshot_xmin(pg_current_snapshot())::text::bigint, now())
ON CONFLICT (id) DO NOTHING
"""
# `next` was taken from an earlier snapshot, so all transactions before it have ended since.
_ADVANCE = """
UPDATE governance_changehorizon
   SET deleted = next, next = pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
       taken_at = now()
 WHERE id = 1 AND (taken_at < now() - make_interval(secs => %s) OR taken_at > now()
       OR next > pg_snapshot_xmax(pg_current_snapshot())::text::bigint)
RETURNING CASE WHEN deleted > pg_snapshot_xmax(pg_current_snapshot())::text::bigint
               THEN 0 ELSE deleted END
"""
# Transactions of the future were restored with a backup of another server.
_DELETE = """
DELETE FROM governance_change
 WHERE transaction < %s
    OR transaction >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint
"""


@transaction.atomic
def changes_purge() -> int:
    """Delete changes that every reader had ten minutes to read; return their number."""
    with connection.cursor() as cursor:
        cursor.execute(_BEGIN)
        cursor.execute(_ADVANCE, [KEPT.total_seconds()])
        row = cursor.fetchone()
        if row is None:
            return 0
        cursor.execute(_DELETE, [row[0]])
        deleted: int = cursor.rowcount
        return deleted
