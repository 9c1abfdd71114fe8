"""The whole log as lines that `governance.audit.verify` can check offline."""

from __future__ import annotations

from collections.abc import Iterator

from governance.audit.models import AuditCheckpoint, AuditEvent
from governance.audit.outside.bodies import canonical_of
from governance.audit.signing import audit_public_keys, audit_signer, may_sign
from governance.audit.tree.merkle import EMPTY_ROOT
from governance.audit.verify import event_line, header_line
from governance.errors import Unavailable, WrongState

FETCH = 2000


def export_lines() -> Iterator[str]:
    """Yield a header with the latest checkpoint, then a line for each event that it covers.

    Lines have no line breaks. Events are read in pages, so memory does not grow with the log.
    """
    size, header = export_header()
    yield header
    for event in sealed_events(size):
        yield export_line(event)


def export_header() -> tuple[int, str]:
    """Return the number of events under the latest checkpoint, and the header line with it."""
    keys, latest = audit_public_keys(), AuditCheckpoint.objects.first()
    if latest is None:
        if not may_sign():
            raise Unavailable(
                "Nothing is sealed yet, so there is nothing to export.",
                hint="The controller seals within a second; start it if it does not run.",
                retry_after=2,
            )
        empty = audit_signer().sign(0, EMPTY_ROOT)
        return 0, header_line(public_keys=keys, checkpoint=empty)
    return latest.tree_size, header_line(public_keys=keys, checkpoint=latest.note)


def sealed_events(size: int) -> Iterator[AuditEvent]:
    """Yield the first `size` events in order; no cursor stays open while the reader is slow."""
    for start in range(0, size, FETCH):
        page = AuditEvent.objects.filter(sequence__gte=start, sequence__lt=min(start + FETCH, size))
        yield from page.order_by("sequence")


def export_line(event: AuditEvent) -> str:
    """Return an event's line. Invalid UTF-8 is replaced, so that verification reports the row."""
    if event.sequence is None:
        raise ValueError(f"Audit event {event.pk} is not sealed yet; it cannot be exported.")
    try:
        canonical = canonical_of(event).decode("utf-8", "replace")
    except WrongState:
        canonical = ""  # Verification reports the row.
    return event_line(event.sequence, canonical, bytes(event.leaf_hash))
