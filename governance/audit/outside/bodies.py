"""Bodies of old events, which leave the database for the second place.

The row of an event stays, with the columns that searches read and the hash that is its leaf in the
tree. Only its canonical bytes move, in bundles of 256 events next to the tiles of their hashes.
They are read back, and compared with the published tile, before they leave the database. Whoever
reads them later compares them with the leaf again, so that the second place is not trusted.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from governance.audit.models import AuditCheckpoint, AuditEvent, AuditOffload
from governance.audit.outside.places import Place, PublishRefused
from governance.audit.outside.second_place import second_place
from governance.audit.tree.merkle import leaf_hash
from governance.audit.tree.tiles import WIDTH, numbered_path, published_leaves
from governance.database.locks import session_lock
from governance.errors import Unavailable, WrongState
from governance.retention.months import bounds, month_after, month_of

logger = logging.getLogger(__name__)
LOCK = "audit-offload"
# Events that leave the database in one transaction, and transactions of one round.
STEP, STEPS = 64 * WIDTH, 20
_LENGTH_BYTES = 4
_CLEAR = """
UPDATE governance_auditevent SET canonical = '' WHERE sequence >= %s AND sequence < %s
"""


def bundle_path(index: int) -> str:
    """Return the path of the bundle with events `256 * index` and following."""
    return f"entries/{numbered_path(index)}"


def encode(bodies: Iterable[bytes]) -> bytes:
    """Return a bundle: each body after its length in four bytes, big-endian."""
    return b"".join(len(body).to_bytes(_LENGTH_BYTES, "big") + body for body in bodies)


def decode(data: bytes) -> list[bytes]:
    """Return the bodies of a bundle. Raises ValueError if it is cut off."""
    bodies, at = [], 0
    while at < len(data):
        length = int.from_bytes(data[at : at + _LENGTH_BYTES], "big")
        at += _LENGTH_BYTES
        if at + length > len(data):
            raise ValueError("The bundle is cut off.")
        bodies.append(data[at : at + length])
        at += length
    return bodies


def canonical_of(event: AuditEvent) -> bytes:
    """Return the canonical bytes of an event, from the second place if they have left the database.

    Raises:
        Unavailable: the second place does not answer.
        WrongState: the second place lacks them, or has bytes that are not the event's leaf.
    """
    stored = bytes(event.canonical)
    if stored or event.sequence is None:
        return stored
    index, offset = divmod(event.sequence, WIDTH)
    place = second_place()
    try:
        bodies = _bundle(place, index)
    except OSError as error:
        raise Unavailable(
            f"The body of audit event {event.pk} is in the second place of the audit log, which "
            f"does not answer: {error}",
            hint="Try again; `assay doctor` checks the second place.",
        ) from error
    if len(bodies) != WIDTH or leaf_hash(bodies[offset]) != bytes(event.leaf_hash):
        raise WrongState(
            f"{place.name} does not have the sealed bytes of audit event {event.pk}.",
            code="audit_body_lost",
            hint=f"Restore {bundle_path(index)} there from a copy of the second place.",
        )
    return bodies[offset]


@functools.lru_cache(maxsize=16)
def _kept_bundle(name: str, index: int) -> tuple[bytes, ...]:
    """Return the bodies of a bundle of the second place of this name."""
    data = second_place().read(bundle_path(index))
    if data is None:
        raise FileNotFoundError(bundle_path(index))
    return tuple(decode(data))


def _bundle(place: Place, index: int) -> tuple[bytes, ...]:
    """Return the bodies of a bundle; none if it is missing or cut off. Raises OSError."""
    try:
        return _kept_bundle(place.name, index)
    except (FileNotFoundError, ValueError):
        return ()


def bodies_offload_due() -> int:
    """Move the bodies of events that are older than `ASSAY_AUDIT_OFFLOAD_MONTHS` to the second
    place; return the number of events. For the controller.

    A failure is recorded, raises an alarm, and is tried again in the next round.
    """
    if not settings.AUDIT_OFFLOAD_MONTHS:
        return 0
    with session_lock(LOCK) as locked:
        if not locked:
            return 0
        state, _ = AuditOffload.objects.get_or_create(pk=1)
        began = state.size
        try:
            for _ in range(STEPS):
                if not _offload_step(state):
                    break
            state.error = ""
        except (OSError, PublishRefused, WrongState, ValueError) as error:
            state.error = str(error)[:500]
            logger.warning("Bodies of audit events stay in the database: %s", error)
        state.save(update_fields=["error", "tried_at"])
        return state.size - began


def _offload_step(state: AuditOffload) -> bool:
    """Move the next bodies; return False if too few events are old enough and published."""
    cutoff, _ = bounds(month_after(month_of(timezone.now()), -settings.AUDIT_OFFLOAD_MONTHS))
    published = AuditCheckpoint.objects.filter(published_at__isnull=False).first()
    size = 0 if published is None else published.tree_size
    end = min(state.size + STEP, size // WIDTH * WIDTH)
    rows = list(
        AuditEvent.objects.filter(sequence__gte=state.size, sequence__lt=end)
        .order_by("sequence")
        .only("sequence", "occurred_at", "canonical", "leaf_hash")
    )
    young = next((row.sequence for row in rows if row.occurred_at >= cutoff), None)
    end = end if young is None else (young or 0) // WIDTH * WIDTH
    rows = [row for row in rows if (row.sequence or 0) < end]
    if not rows:
        return False
    place = second_place()
    bundles = {
        (state.size + at) // WIDTH: rows[at : at + WIDTH] for at in range(0, len(rows), WIDTH)
    }
    place.keep(
        [
            (bundle_path(index), encode(canonical_of(row) for row in part))
            for index, part in bundles.items()
        ]
    )
    for index, part in bundles.items():
        _check_bundle(place, index, [bytes(row.leaf_hash) for row in part])
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_CLEAR, [state.size, end])
        state.size = end
        state.save(update_fields=["size", "tried_at"])
    return True


def _check_bundle(place: Place, index: int, leaves: list[bytes]) -> None:
    """Raise PublishRefused unless the second place has the bytes of these leaves, in a published
    tile. Raises OSError."""
    data = place.read(bundle_path(index))
    try:
        bodies = decode(data or b"")
    except ValueError:
        bodies = []
    published = published_leaves(place, index * WIDTH, (index + 1) * WIDTH)
    if [leaf_hash(body) for body in bodies] != leaves or published != leaves:
        raise PublishRefused(f"{bundle_path(index)} in {place.name} is not what was sealed.")


def offload_failing() -> str:
    """Return why bodies do not leave the database, or an empty string."""
    state = AuditOffload.objects.exclude(error="").first()
    return "" if state is None else f"Old bodies stay in the database: {state.error}"
