"""The sealer: gives recorded events their place in the tree and signs its head.

Ids are drawn before a transaction commits, so events may appear out of id order. That is harmless:
an event's place is decided here, when it is seen without one, and none is ever passed over.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import datetime

from django.conf import settings
from django.db import Error, connection, connections, transaction
from django.utils import timezone

from governance.audit import tiles
from governance.audit.checkpoint import BadCheckpoint, Verifier
from governance.audit.merkle import Frontier, tree_root
from governance.audit.models import AuditCheckpoint, AuditSubtree
from governance.audit.proofs import leaf_hashes
from governance.audit.signing import audit_public_keys, audit_signer

logger = logging.getLogger(__name__)

SEALER_LOCK = 0x41535341  # "ASSA": the advisory lock that makes one sealer of many
BATCH = 5000
PAUSE_AFTER_ERROR_S = 2.0
PAUSE_AFTER_FAILED_PUBLISHING_S = 10.0

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
    """Seal up to `batch` events in one transaction, then publish; returns how many were sealed.

    Returns 0 when there is nothing to seal or another process is sealing.

    Raises:
        RuntimeError: called inside a transaction; a head must not be published before it is kept.
    """
    sealed = _seal_batch(batch)
    publish_pending()
    return sealed


def publish_pending() -> bool:
    """Bring the outside copy up to the latest checkpoint; False when that failed.

    A failure is logged and leaves `published_at` empty; the next call catches up.
    """
    latest = AuditCheckpoint.objects.first()
    if latest is None or latest.published_at is not None:
        return True
    try:
        with transaction.atomic(durable=True):
            if _take_lock():
                _publish()
    except (tiles.PublishRefused, BadCheckpoint) as error:
        logger.critical("The audit log and its outside copy contradict each other: %s", error)
        return False
    except OSError as error:
        logger.warning("Audit checkpoint %s is not published: %s", latest.tree_size, error)
        return False
    return True


def run(stop: threading.Event, interval_s: float = 0.1) -> None:
    """Seal every `interval_s` seconds until `stop` is set; waits for a database that is away."""
    publish_at = 0.0
    try:
        while not stop.is_set():
            try:
                sealed = _seal_batch(BATCH)
                if time.monotonic() >= publish_at and not publish_pending():
                    publish_at = time.monotonic() + PAUSE_AFTER_FAILED_PUBLISHING_S
                pause = 0.0 if sealed == BATCH else interval_s
            except Error as error:
                logger.error("Sealing failed and will be tried again: %s", error)
                connection.close()
                pause = PAUSE_AFTER_ERROR_S
            stop.wait(pause)
    finally:
        connections.close_all()


def _seal_batch(batch: int) -> int:
    with transaction.atomic(durable=True):
        return _seal(batch) if _take_lock() else 0


def _take_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [SEALER_LOCK])
        return bool(cursor.fetchone()[0])


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
    """Keep the root of each tile that `leaves`, the next ones after `size`, make full."""
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


def _publish() -> None:
    """Under the lock, so that two processes never write the folder at once."""
    folder = settings.AUDIT_PUBLISH_DIR
    latest = AuditCheckpoint.objects.latest("tree_size")
    published = _published_size(latest)
    tiles.publish_tree(folder, size=latest.tree_size, published=published, leaves=leaf_hashes)
    tiles.publish_checkpoint(folder, latest.note)
    _mark_published(timezone.now(), latest.tree_size)


def _published_size(latest: AuditCheckpoint) -> int:
    """The size of the outside checkpoint, once it is known to be one of ours.

    Evidence is never overwritten by a history that it contradicts.

    Raises:
        PublishRefused, BadCheckpoint: the outside checkpoint is of another history.
    """
    note = tiles.published_checkpoint(settings.AUDIT_PUBLISH_DIR)
    if note is None:
        return 0
    outside = Verifier.from_text(audit_public_keys()).open(note)
    ours = AuditCheckpoint.objects.filter(tree_size=outside.size).first()
    if outside.size > latest.tree_size:
        raise tiles.PublishRefused(
            f"{outside.size} events were published, the database has sealed {latest.tree_size}."
        )
    if ours is None or bytes(ours.root_hash) != outside.root:
        raise tiles.PublishRefused(
            f"the published root over {outside.size} events is not the database's."
        )
    return outside.size


def _mark_published(now: datetime, size: int) -> None:
    AuditCheckpoint.objects.filter(tree_size__lte=size, published_at__isnull=True).update(
        published_at=now
    )
