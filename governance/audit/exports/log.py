"""The whole log as lines that `governance.audit.verify` checks anywhere."""

from __future__ import annotations

from collections.abc import Iterator

from governance.audit.models import AuditCheckpoint, AuditEvent
from governance.audit.signing import audit_public_keys, audit_signer, may_sign
from governance.audit.tree.merkle import EMPTY_ROOT
from governance.audit.verify import event_line, header_line
from governance.errors import Unavailable

FETCH = 2000


def export_lines() -> Iterator[str]:
    """A header with the latest checkpoint, then one line for each event that it covers, in order.

    Lines come without line ends, and are read in pages, so that the log's size costs no memory.
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
    """The first `size` events in order. No cursor stays open while the reader takes its time."""
    for start in range(0, size, FETCH):
        page = AuditEvent.objects.filter(sequence__gte=start, sequence__lt=min(start + FETCH, size))
        yield from page.order_by("sequence")


def export_line(event: AuditEvent) -> str:
    """One event's line. Bytes that are not UTF-8 are shown replaced, so that verifying names it."""
    if event.sequence is None:
        raise ValueError(f"Audit event {event.pk} is not sealed yet; it has no place in an export.")
    canonical = bytes(event.canonical).decode("utf-8", "replace")
    return event_line(event.sequence, canonical, bytes(event.leaf_hash))
