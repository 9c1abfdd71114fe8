"""The sealer: assigns recorded events their place in the tree and signs its head.

Publishing is separate (`publishing`), so that outside systems cannot delay sealing. Transactions
draw IDs before they commit, so events may appear out of ID order. That is harmless: the sealer
assigns places to all events without one, whatever their ID, so it never skips an event.
"""

from __future__ import annotations

import logging
import threading

from django.db import Error, connection, connections, transaction

from governance.audit.models import AuditCheckpoint, AuditEvent, AuditSubtree
from governance.audit.outside.publishing import publish_pending
from governance.audit.signing import audit_signer
from governance.audit.tree import tiles
from governance.audit.tree.merkle import Frontier, tree_root
from governance.audit.tree.proofs import leaf_hashes
from governance.database.locks import try_lock

logger = logging.getLogger(__name__)

SEALER_LOCK = "sealer"  # Only the process that holds it seals.
BATCH = 5000
PAUSE_AFTER_ERROR_S = 2.0
# The longest pause while no events arrive, and so the longest delay of the next event's seal.
LONGEST_PAUSE_S = 1.0
# PostgreSQL ends the session of a sealer that stops halfway, such as on a paused machine, so that
# another takes over. A working sealer never takes this long between two statements.
HUNG_AFTER_S = 15

_NUMBER = """
WITH unsealed AS (
    SELECT id FROM governance_auditevent WHERE sequence IS NULL ORDER BY id LIMIT %s
), numbered AS (
    SELECT id, %s + row_number() OVER (ORDER BY id) - 1 AS sequence FROM unsealed
)
UPDATE governance_auditevent AS event SET sequence = numbered.sequence
FROM numbered WHERE event.id = numbered.id
RETURNING numbered.sequence, event.leaf_hash
"""


def seal_once(*, batch: int = BATCH) -> int:
    """Seal up to `batch` events in one transaction, then publish; return how many were sealed.

    Returns 0 if no event waits or another process is sealing.

    Raises:
        RuntimeError: called inside a transaction; a head must be committed before it is published.
    """
    sealed = _seal_batch(batch)
    publish_pending()
    return sealed


def run(stop: threading.Event, interval_s: float = 0.1) -> None:
    """Seal every `interval_s` seconds until `stop` is set; wait for an unavailable database.

    While no events arrive, pauses grow to `LONGEST_PAUSE_S`, since each round costs a query.
    """
    pause = interval_s
    try:
        while not stop.is_set():
            try:
                sealed = _seal_batch(BATCH)
                if sealed:
                    pause = 0.0 if sealed == BATCH else interval_s
                else:
                    pause = min(max(2 * pause, interval_s), LONGEST_PAUSE_S)
            except Error as error:
                logger.error("Sealing failed and will be tried again: %s", error)
                connection.close()
                pause = PAUSE_AFTER_ERROR_S
            stop.wait(pause)
    finally:
        connections.close_all()


def _seal_batch(batch: int) -> int:
    with transaction.atomic(durable=True):
        # This query costs less than taking the lock in each round.
        if not AuditEvent.objects.filter(sequence__isnull=True).exists():
            return 0
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{HUNG_AFTER_S:d}s'")
        return _seal(batch) if try_lock(SEALER_LOCK) else 0


def _seal(batch: int) -> int:
    last = AuditCheckpoint.objects.first()
    frontier = Frontier()
    if last is not None:
        frontier = Frontier.from_bytes(last.tree_size, bytes(last.frontier))
    with connection.cursor() as cursor:
        cursor.execute(_NUMBER, [batch, frontier.size])
        rows = sorted(cursor.fetchall())
    if not rows:
        return 0
    leaves = [bytes(leaf) for _, leaf in rows]
    _keep_subtrees(frontier.size, leaves)
    frontier.extend(leaves)
    root = frontier.root()
    AuditCheckpoint.objects.create(
        tree_size=frontier.size,
        root_hash=root,
        frontier=frontier.to_bytes(),
        note=audit_signer().sign(frontier.size, root),
    )
    return len(rows)


def _keep_subtrees(size: int, leaves: list[bytes]) -> None:
    """Store the root of each tile that becomes full with `leaves`, which follow leaf `size` - 1."""
    first, offset = divmod(size, tiles.WIDTH)
    if offset + len(leaves) < tiles.WIDTH:
        return
    leaves = tiles.split_hashes(leaf_hashes(size - offset, size)) + leaves
    full = range(len(leaves) // tiles.WIDTH)
    AuditSubtree.objects.bulk_create(
        AuditSubtree(
            index=first + i, root_hash=tree_root(leaves[i * tiles.WIDTH : (i + 1) * tiles.WIDTH])
        )
        for i in full
    )
