"""Publishing: brings the second place up to the latest checkpoint, in parallel to the sealer.

The second place may hang, or be away for a day: nothing here holds up sealing, and no transaction
is open while a byte is written outside. One publisher of many works, by a lock of its own.
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
# So many events are published before the checkpoint over them is: what is caught up stays so.
STEP = 65_536
PAUSE_AFTER_FAILURE_S = 10.0
# Longer than what is written outside between two questions to the database takes at its slowest.
LOST_AFTER_MS = 300_000


def publish_pending(stop: threading.Event | None = None) -> bool:
    """Bring the second place up to the latest checkpoint; False when that failed.

    A failure is logged, and told to the alarms, and leaves `published_at` empty; the next call
    catches up. Ends early, after a step, when `stop` is set.
    """
    latest = AuditCheckpoint.objects.first()
    if latest is None or (latest.published_at is not None and not witnessing.owed(latest)):
        return True
    with _only_one() as ours:
        # Read again: another may have published more while this one waited for its turn.
        latest = AuditCheckpoint.objects.latest("tree_size")
        return _publish(latest, stop or threading.Event()) if ours else True


def run(stop: threading.Event) -> None:
    """Publish until `stop` is set; waits for a database that is away."""
    try:
        _say_faults()
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
def _only_one() -> Iterator[bool]:
    """Try to become the one process that publishes now. The lock belongs to the connection and ends
    with it.

    PostgreSQL ends the connection of a publisher that is silent for too long, as one on a machine
    that was paused is, so that another takes over.
    """
    with session_lock(PUBLISHER_LOCK) as ours:
        if not ours:
            yield False
            return
        with connection.cursor() as cursor:
            cursor.execute(f"SET idle_session_timeout = {LOST_AFTER_MS:d}")
        try:
            yield True
        finally:
            with connection.cursor() as cursor:
                cursor.execute("RESET idle_session_timeout")


def _say_faults() -> None:
    place = second_place()
    try:
        for fault in place.faults():
            logger.warning("%s", fault)
    except OSError as error:
        logger.warning("The second place of the audit log does not answer: %s", error)


def _publish(latest: AuditCheckpoint, stop: threading.Event) -> bool:
    """Under the lock, so that two processes never write the place at once."""
    place = second_place()
    # First: a witness sees every history that is published, and may refuse it.
    witnessing.cosign(latest)
    try:
        size = _bring_up(place, latest, stop)
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


def _bring_up(place: Place, latest: AuditCheckpoint, stop: threading.Event) -> int:
    """Publish up to `latest`, a step at a time; returns the size that the place then has."""
    outside = tiles.published_checkpoint(place)
    published = _nothing(place) if outside is None else _published_size(outside, latest)
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


def _nothing(place: Place) -> int:
    """0, where nothing stands in a place that is new.

    Raises:
        PlaceUnavailable: the place is known to have held something. Written to anew, a folder whose
            storage is not mounted would be taken for the copy that it hides.
    """
    keeper = AuditKeeper.objects.filter(key=place.name, size__gt=0).first()
    if keeper is not None:
        raise PlaceUnavailable(
            f"{place.name}: {keeper.size} events were published there, and nothing is there now. "
            "Is its storage mounted? To begin anew, publish to another place."
        )
    return 0


def _next_head(published: int, latest: AuditCheckpoint) -> AuditCheckpoint:
    """The furthest head within a step of what is published, or the next one if that is further."""
    ahead = AuditCheckpoint.objects.filter(tree_size__gt=published, tree_size__lte=latest.tree_size)
    return ahead.filter(tree_size__lte=published + STEP).first() or ahead.last() or latest


def _published_size(note: str, latest: AuditCheckpoint) -> int:
    """The size of the outside checkpoint, once it is known to be one of ours.

    Evidence is never overwritten by a history that it contradicts.

    Raises:
        PublishRefused, BadCheckpoint: the outside checkpoint is of another history.
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
