"""State of the event streams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.utils import timezone

from governance.audit.models import AuditCheckpoint, AuditEvent
from governance.audit.streaming.destinations import Destination
from governance.audit.streaming.models import AuditStream
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize
from governance.principals import Principal


@dataclass(frozen=True, slots=True)
class StreamState:
    """State of one stream: waiting (not started), streaming, behind (unsent events) or failing.
    `next_sequence` is null while waiting. `lag_events` counts sealed events that are not accepted
    yet, `lag_s` is the age of the oldest of them in seconds.
    """

    name: str
    address: str
    format: str
    personal_data: bool
    encrypted: bool
    state: str
    next_sequence: int | None
    sent_at: datetime | None
    failing_since: datetime | None
    last_error: str
    reduced: int
    lag_events: int
    lag_s: float


def audit_streams_visible_to(actor: Principal) -> list[StreamState]:
    """Return the configured streams in the configured order, for readers of the whole log.

    Raises:
        NotFound, NotPermitted: the actor may not read the whole log.
    """
    authorize(actor=actor, action=Action.AUDIT_VIEW, resource=Resource(type="audit"))
    return stream_states()


def stream_states() -> list[StreamState]:
    """Return all configured streams, for alarms and metrics; takes three queries."""
    destinations: tuple[Destination, ...] = settings.SIEM_STREAMS
    if not destinations:
        return []
    streams = AuditStream.objects.in_bulk([d.name for d in destinations])
    head = AuditCheckpoint.objects.only("tree_size").first()
    size = 0 if head is None else head.tree_size
    oldest = _oldest_unsent(streams, size)
    return [_state(d, streams.get(d.name), size, oldest) for d in destinations]


def _oldest_unsent(streams: Mapping[str, AuditStream], size: int) -> dict[int, datetime]:
    """Return the time of the event at each cursor, by the event's number."""
    cursors = {stream.next_sequence for stream in streams.values() if stream.next_sequence < size}
    cursors.add(0)
    events = AuditEvent.objects.filter(sequence__in=cursors)
    return {
        sequence: at
        for sequence, at in events.values_list("sequence", "occurred_at")
        if sequence is not None
    }


def _state(
    destination: Destination, stream: AuditStream | None, size: int, oldest: dict[int, datetime]
) -> StreamState:
    at = 0 if stream is None else stream.next_sequence
    lag = max(0, size - at)
    if stream is None and destination.begin == "now":
        lag = 0
    since = oldest.get(at) if lag else None
    waited = 0.0 if since is None else max(0.0, (timezone.now() - since).total_seconds())
    if stream is None:
        state = "waiting"
    elif stream.failing_since is not None:
        state = "failing"
    else:
        state = "behind" if lag else "streaming"
    return StreamState(
        name=destination.name,
        address=destination.address,
        format=destination.format,
        personal_data=destination.personal_data,
        encrypted=destination.encrypted,
        state=state,
        next_sequence=None if stream is None else stream.next_sequence,
        sent_at=None if stream is None else stream.sent_at,
        failing_since=None if stream is None else stream.failing_since,
        last_error="" if stream is None else stream.last_error,
        reduced=0 if stream is None else stream.reduced,
        lag_events=lag,
        lag_s=waited,
    )
