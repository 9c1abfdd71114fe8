"""Read which objects have changed since an earlier reading, without missing any.

Transactions commit in another order than that of their IDs, so no ID marks how far a reader has
come. The position is a snapshot of PostgreSQL's: the transactions that were running, and the first
ID that was not assigned yet. The next reading returns the changes of these that are visible now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from django.db import connection

# Different objects in one reading. Beyond it, reading everything again is cheaper.
MOST = 20_000
# The statement has one snapshot, which decides which rows it sees and is the new position. Rows
# of transactions that this server has not begun yet come from a restored backup.
_SELECT = """
SELECT pg_current_snapshot()::text, pg_postmaster_start_time()::text,
       coalesce((SELECT max(deleted) FROM governance_changehorizon), 0), c.kind, c.subject
  FROM (SELECT) AS always LEFT JOIN (
        SELECT DISTINCT kind, subject FROM governance_change
         WHERE (transaction >= %(newest)s OR transaction = ANY (%(running)s))
           AND transaction < pg_snapshot_xmax(pg_current_snapshot())::text::bigint
         LIMIT %(most)s
       ) AS c ON true
"""


@dataclass(frozen=True, slots=True)
class Position:
    """The point up to which changes were read. `server` is the start of the server process: after
    a restart or failover, transactions and their IDs may have been lost.
    """

    server: str
    snapshot: str

    @property
    def oldest(self) -> int:
        """ID of the oldest transaction that was running."""
        return int(self.snapshot.split(":")[0])

    @property
    def newest(self) -> int:
        """First ID that was not assigned yet."""
        return int(self.snapshot.split(":")[1])

    @property
    def running(self) -> list[int]:
        """IDs of the transactions that were running."""
        ids = self.snapshot.split(":")[2]
        return [int(each) for each in ids.split(",")] if ids else []


@dataclass(frozen=True, slots=True)
class Changes:
    """Subjects of changed objects by kind, and the position to go on from. `lost`: changes may be
    missing, so everything must be read again.
    """

    position: Position
    subjects: Mapping[str, frozenset[str]] = field(default_factory=dict)
    lost: bool = False

    def of(self, *kinds: str) -> set[str]:
        """Return the subjects of these kinds."""
        return {subject for kind in kinds for subject in self.subjects.get(kind, ())}

    def numbers(self, *kinds: str) -> set[int]:
        """Return the subjects of these kinds, which are IDs."""
        return {int(subject) for subject in self.of(*kinds)}


def changes_since(position: Position | None) -> Changes:
    """Return the objects that were changed since `position`; with None, only the present position.

    Objects that are read after this call include the returned changes, and perhaps later ones.

    Raises:
        django.db.Error: PostgreSQL does not answer.
    """
    # Without a position, no row is needed.
    newest, running = (2**63 - 1, []) if position is None else (position.newest, position.running)
    with connection.cursor() as cursor:
        cursor.execute(_SELECT, {"newest": newest, "running": running, "most": MOST + 1})
        rows = cursor.fetchall()
    snapshot, server, deleted, *_ = rows[0]
    now = Position(server, snapshot)
    if position is None:
        return Changes(now)
    # A horizon from the future belongs to the server that a backup was made from.
    overtaken = position.oldest < deleted <= now.newest
    restarted = position.server != server or now.newest < position.newest
    if overtaken or restarted or len(rows) > MOST:
        return Changes(now, lost=True)
    subjects: dict[str, set[str]] = {}
    for *_, kind, subject in rows:
        if kind is not None:
            subjects.setdefault(kind, set()).add(subject)
    return Changes(now, {kind: frozenset(each) for kind, each in subjects.items()})
