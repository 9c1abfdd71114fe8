"""Publishing: brings the second place up to the latest checkpoint, in parallel to the sealer.

The second place may hang, or be unavailable for a day: publishing never blocks sealing, and no
transaction is open during outside writes. A lock ensures that only one process publishes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.db import Error, connection, connections
from django.utils import timezone

from governance.audit.checkpoint import BadCheckpoint, Verifier
from governance.audit.models import AuditCheckpoint, AuditKeeper
from governance.audit.outside import keepers, witnessing
from governance.audit.outside.places import Place, PlaceUnavailable, PublishRefused
from governance.audit.outside.second_place import second_place
from governance.audit.signing import audit_public_keys
from governance.audit.tree import tiles
from governance.audit.tree.proofs import leaf_hashes
from governance.database.locks import session_lock

logger = logging.getLogger(__name__)

PUBLISHER_LOCK = "publisher"
# While catching up, a checkpoint is published after this many events, which saves the progress.
STEP = 65_536
PAUSE_AFTER_FAILURE_S = 10.0
# Longer than the slowest outside writes between two queries to the database.
LOST_AFTER_MS = 300_000


def publish_pending(stop: threading.Event | None = None) -> bool:
    """Bring the second place up to the latest checkpoint; return False on failure.

    A failure is logged, raises an alarm, and leaves `published_at` empty; the next call catches up.
    If `stop` is set, ends early after a step.
    """
    latest = AuditCheckpoint.objects.first()
    if latest is None or (latest.published_at is not None and not witnessing.owed(latest)):
        return True
    with _publisher_lock() as locked:
        # Read again: another process may have published more in the meantime.
        latest = AuditCheckpoint.objects.latest("tree_size")
        return _publish(latest, stop or threading.Event()) if locked else True


def run(stop: threading.Event) -> None:
    """Publish until `stop` is set; wait while the database is unavailable."""
    try:
        _log_faults()
        while not stop.is_set():
            try:
                done = publish_pending(stop)
                pause = settings.AUDIT_PUBLISH_INTERVAL_S if done else PAUSE_AFTER_FAILURE_S
            except Error as error:
                logger.error("Publishing failed and will be tried again: %s", error)
                connection.close()
                pause = PAUSE_AFTER_FAILURE_S
            stop.wait(pause)
    finally:
        connections.close_all()


@contextmanager
def _publisher_lock() -> Iterator[bool]:
    """Try to become the only publishing process; the lock ends with the database connection.

    PostgreSQL ends the connection of a publisher that is silent for too long, such as on a paused
    machine, so that another takes over.
    """
    with session_lock(PUBLISHER_LOCK) as locked:
        if not locked:
            yield False
            return
        with connection.cursor() as cursor:
            cursor.execute(f"SET idle_session_timeout = {LOST_AFTER_MS:d}")
        try:
            yield True
        finally:
            with connection.cursor() as cursor:
                cursor.execute("RESET idle_session_timeout")


def _log_faults() -> None:
    place = second_place()
    try:
        for fault in place.faults():
            logger.warning("%s", fault)
    except OSError as error:
        logger.warning("The second place of the audit log does not answer: %s", error)


def _publish(latest: AuditCheckpoint, stop: threading.Event) -> bool:
    """Publish; the caller holds the lock, so that two processes never write the place at once."""
    place = second_place()
    # Before publishing, so that witnesses see every published history and can reject it.
    witnessing.cosign(latest)
    try:
        size = _catch_up(place, latest, stop)
    except (PublishRefused, BadCheckpoint) as error:
        logger.critical("The audit log and its outside copy contradict each other: %s", error)
        keepers.contradicted(place.name, AuditKeeper.Kind.PLACE, str(error))
        return False
    except OSError as error:
        logger.warning("Audit checkpoint %s is not published: %s", latest.tree_size, error)
        keepers.failed(place.name, AuditKeeper.Kind.PLACE, str(error))
        return False
    keepers.reached(place.name, AuditKeeper.Kind.PLACE, size)
    return True


def _catch_up(place: Place, latest: AuditCheckpoint, stop: threading.Event) -> int:
    """Publish up to `latest`, step by step; return the published size at the end."""
    outside = tiles.published_checkpoint(place)
    published = _checked_empty(place) if outside is None else _published_size(outside, latest)
    while True:
        head = _next_head(published, latest)
        tiles.publish_tree(place, size=head.tree_size, published=published, leaves=leaf_hashes)
        note = witnessing.cosigned_note(head)
        if note != outside:
            tiles.publish_checkpoint(place, note)
        _mark_published(head.tree_size)
        outside, published = note, head.tree_size
        if published == latest.tree_size or stop.is_set():
            return published


def _checked_empty(place: Place) -> int:
    """Return the published size 0 if the empty place is new.

    Raises:
        PlaceUnavailable: something was published there before. Perhaps its storage is not mounted;
            files written now would then hide the real copy.
    """
    keeper = AuditKeeper.objects.filter(key=place.name, size__gt=0).first()
    if keeper is not None:
        raise PlaceUnavailable(
            f"{place.name}: {keeper.size} events were published there, but it is empty now. "
            "Is its storage mounted? To start over, publish to another place."
        )
    return 0


def _next_head(published: int, latest: AuditCheckpoint) -> AuditCheckpoint:
    """Return the largest head within a step of the published size, or else the next head."""
    ahead = AuditCheckpoint.objects.filter(tree_size__gt=published, tree_size__lte=latest.tree_size)
    return ahead.filter(tree_size__lte=published + STEP).first() or ahead.last() or latest


def _published_size(note: str, latest: AuditCheckpoint) -> int:
    """Return the size of the outside checkpoint, after checking that it is one of this database.

    A different history in the second place is evidence and must not be overwritten.

    Raises:
        PublishRefused, BadCheckpoint: the outside checkpoint is from a different history.
    """
    outside = Verifier.from_text(audit_public_keys()).open(note)
    ours = AuditCheckpoint.objects.filter(tree_size=outside.size).first()
    if outside.size > latest.tree_size:
        raise PublishRefused(
            f"{outside.size} events were published, the database has sealed {latest.tree_size}."
        )
    if ours is None or bytes(ours.root_hash) != outside.root:
        raise PublishRefused(
            f"the published root over {outside.size} events is not the database's."
        )
    return outside.size


def _mark_published(size: int) -> None:
    AuditCheckpoint.objects.filter(tree_size__lte=size, published_at__isnull=True).update(
        published_at=timezone.now()
    )
