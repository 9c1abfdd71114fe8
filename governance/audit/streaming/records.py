"""Records to send: the events of a stream, with the data that its receiver may have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from governance.audit.models import AuditEvent
from governance.audit.personal import opened_bodies, sealed_body

REASON_SHORT = 200
# Actions of replacement records: the log was tampered with, or the receiver rejects the event.
MISSING = "audit:missing"
UNREADABLE = "audit:unreadable"
REFUSED = "audit:refused"
# Fields that may have personal data in events of version 1, which had no boxes.
_ONCE_IN_CLEAR = ("actor_name", "subject_name", "reason", "client_address")


@dataclass(frozen=True, slots=True)
class Record:
    """An event to send. `sequence` and `leaf_hash` (hexadecimal) identify it in the log.

    `body` is the event's canonical body, with or without the content of its boxes; `at` is its
    time. `after` is the cursor once it is accepted. If `is_replacement`, the body tells why the
    event cannot be sent.
    """

    sequence: int
    leaf_hash: str
    body: dict[str, Any]
    at: datetime
    after: int
    is_replacement: bool = False
    shortened: bool = False

    def shorter(self) -> Record:
        """Return a copy without details and with a shortened reason."""
        reason = str(self.body.get("reason", ""))
        cut = reason if len(reason) <= REASON_SHORT else reason[: REASON_SHORT - 1] + "…"
        return replace(self, body={**self.body, "data": {}, "reason": cut}, shortened=True)

    def stand_in(self, action: str, reason: str) -> Record:
        """Return a replacement for an event that cannot be sent: its number, hash and reason."""
        body: dict[str, Any] = {
            "actor_kind": "service",
            "actor_id": "assay",
            "actor_name": "assay",
            "department": "",
            "action": action,
            "outcome": "failed",
            "subject_type": "audit",
            "subject_id": str(self.sequence),
            "subject_name": "",
            "reason": reason,
            "request_id": "",
            "client_address": "",
            "policy_version": None,
            "occurred_at": self.at.isoformat(),
            "data": {},
        }
        return replace(self, body=body, is_replacement=True)


def records_of(events: Sequence[AuditEvent], *, start: int, personal_data: bool) -> list[Record]:
    """Return the events, which are in order and start at `start`, as records.

    A replacement record reports events that were deleted or made unreadable.
    """
    bodies = _bodies(events, personal_data)
    records: list[Record] = []
    expected = start
    for event in events:
        sequence = event.sequence or 0
        if sequence > expected:
            records.append(_missing(expected, sequence, event.occurred_at))
        body = bodies.get(sequence)
        leaf_hash = bytes(event.leaf_hash).hex()
        record = Record(sequence, leaf_hash, body or {}, event.occurred_at, sequence + 1)
        if body is None:
            record = record.stand_in(UNREADABLE, "The event's bytes were changed: not JSON.")
        records.append(record)
        expected = sequence + 1
    return records


def _missing(first: int, end: int, at: datetime) -> Record:
    events = f"Event {first} is" if end == first + 1 else f"Events {first} to {end - 1} are"
    record = Record(first, "", {}, at, end)
    return record.stand_in(MISSING, f"{events} missing from the database: deleted.")


def _bodies(events: Sequence[AuditEvent], personal_data: bool) -> dict[int, dict[str, Any]]:
    """Return the readable bodies by sequence number."""
    readable = list(_readable(events))
    if not personal_data:
        return {event.sequence or 0: _pseudonymous(body) for event, body in readable}
    opened = opened_bodies(event for event, _ in readable)
    return {
        event.sequence or 0: _without_boxes(body)
        for (event, _), body in zip(readable, opened, strict=True)
    }


def _readable(events: Sequence[AuditEvent]) -> Iterator[tuple[AuditEvent, dict[str, Any]]]:
    for event in events:
        try:
            yield event, sealed_body(event)
        except (ValueError, RecursionError):
            continue


def _without_boxes(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "personal"}


def _pseudonymous(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body without boxes, so that people are IDs only."""
    body = _without_boxes(body)
    if body.get("v") == 1:
        return {**body, **dict.fromkeys(_ONCE_IN_CLEAR, ""), "data": {}}
    return body
