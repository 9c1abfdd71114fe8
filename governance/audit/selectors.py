"""Reads of the audit log: events, checkpoints, lag, and verification of the live log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from django.db.models import QuerySet
from django.utils import timezone

from governance.audit.exports.log import export_header, export_line, sealed_events
from governance.audit.models import AuditCheckpoint, AuditEvent
from governance.audit.outside.bodies import canonical_of
from governance.audit.outside.places import Place
from governance.audit.outside.second_place import second_place
from governance.audit.personal import opened, sealed_body
from governance.audit.record_checks import KeyCheck, fault_in_records, stray_event
from governance.audit.search.filters import EventFilter, holds
from governance.audit.services import event_columns
from governance.audit.signing import audit_public_keys
from governance.audit.tree.tiles import published_checkpoint
from governance.audit.verify import VerificationReport, verify_export
from governance.errors import NotFound
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.selectors import visible_to
from governance.policy.services import authorize
from governance.principals import Principal

COUNTED = 100_000


def audit_events_visible_to(
    actor: Principal,
    *,
    action: str | None = None,
    actor_kind: str | None = None,
    actor_id: str | None = None,
    who: str | None = None,
    subject_type: str | None = None,
    subject_id: str | None = None,
    subject: str | None = None,
    outcome: str | None = None,
    department: str | None = None,
    request_id: str | None = None,
    policy_version: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    query: str | None = None,
) -> QuerySet[AuditEvent]:
    """Return the events that the policy lets `actor` see, newest first; empty filters are off.

    `EventFilter` describes the filters. The number of events is not limited: lists use
    `audit_event_page`.
    """
    criteria = EventFilter(
        action=action,
        actor_kind=actor_kind,
        actor_id=actor_id,
        who=who,
        subject_type=subject_type,
        subject_id=subject_id,
        subject=subject,
        outcome=outcome,
        department=department,
        request_id=request_id,
        policy_version=policy_version,
        since=since,
        until=until,
        query=query,
    )
    events = visible_to(actor, Action.AUDIT_VIEW, AuditEvent.objects.all(), resource_type="audit")
    return events.filter(holds(actor, criteria)).order_by("-id")


def audit_event_get(*, actor: Principal, id: int) -> AuditEvent:  # noqa: A002 (the contract's word)
    """Return an event with the content of its boxes filled in.

    Raises:
        NotFound: it does not exist, or the actor may not see it.
    """
    event = audit_events_visible_to(actor).filter(pk=id).first()
    if event is None:
        raise NotFound(f"Audit event {id} does not exist, or you may not see it.")
    return opened([event])[0]


def event_text(event: AuditEvent) -> str:
    """Return the canonical bytes as text; replace invalid UTF-8, which only tampering causes."""
    return canonical_of(event).decode("utf-8", "replace")


def latest_checkpoint() -> AuditCheckpoint | None:
    """Return the newest signed head; None before the first event is sealed."""
    return AuditCheckpoint.objects.first()


def audit_checkpoints_visible_to(actor: Principal) -> QuerySet[AuditCheckpoint]:
    """Return all signed heads, newest first, for readers of the whole log.

    Raises:
        NotFound, NotPermitted: the actor may not read the whole log.
    """
    authorize(actor=actor, action=Action.AUDIT_VIEW, resource=Resource(type="audit"))
    # Only the sealer needs the frontier.
    return AuditCheckpoint.objects.defer("frontier").order_by("-id")


def sealing_lag_s() -> float:
    """Return the seconds that the oldest unsealed event has waited; 0 if all are sealed."""
    unsealed = AuditEvent.objects.filter(sequence__isnull=True).order_by("id")
    return _seconds_since(unsealed.values_list("occurred_at", flat=True).first())


def unsealed_events() -> int:
    """Return the number of events without a seal, counted up to `COUNTED`."""
    return AuditEvent.objects.filter(sequence__isnull=True)[:COUNTED].count()


def publish_lag_s() -> float:
    """Return the seconds that the oldest unpublished head has waited; 0 if all are published."""
    waiting = AuditCheckpoint.objects.filter(published_at__isnull=True).order_by("tree_size")
    return _seconds_since(waiting.values_list("created_at", flat=True).first())


def _seconds_since(moment: datetime | None) -> float:
    return 0.0 if moment is None else max(0.0, (timezone.now() - moment).total_seconds())


def verify_restored(*, checkpoints: Sequence[str], tiles: Place | None) -> VerificationReport:
    """Verify the database as `verify_live` does, against the caller's checkpoints and tiles."""
    return _verify(tiles, checkpoints)


def verify_live() -> VerificationReport:
    """Check the database itself.

    In addition to `verify_export`, all search columns, checkpoints, subtrees and people's keys must
    agree with the events. The published checkpoint and tiles are compared if they exist; if the
    second place cannot be read, the log is not verified.
    """
    place = second_place()
    try:
        # Read before the header: heads are published after they are committed, so the header's
        # head is never older.
        outside = published_checkpoint(place)
        return _verify(place, [] if outside is None else [outside])
    except OSError as error:
        report = _verify(None, [])
        if not report.ok:
            return report
        message = (
            f"The second place cannot be read ({error}), so the log was not compared with what was "
            f"published. In itself it agrees: all {report.events} events."
        )
        return replace(report, ok=False, message=message)


def _verify(place: Place | None, outside: Sequence[str]) -> VerificationReport:
    changes: list[tuple[int, str]] = []
    report = verify_export(
        _checked_lines(changes),
        public_keys=audit_public_keys(),
        checkpoints=outside,
        tiles=place,
    )
    if report.ok and not changes and (stray := stray_event()) is not None:
        changes.append((stray, f"Row {stray} was added: no checkpoint covers it."))
    if changes and (report.first_bad is None or changes[0][0] <= report.first_bad):
        sequence, message = changes[0]
        return replace(report, ok=False, first_bad=sequence, message=message)
    if report.ok and (message := fault_in_records(report.events)):
        return replace(report, ok=False, message=message)
    return report


def _checked_lines(changes: list[tuple[int, str]]) -> Iterator[str]:
    """Yield the lines of an export; add to `changes` the first row with an intact hash of which
    a search column or the key of its personal data was changed."""
    size, header = export_header()
    keys = KeyCheck()
    yield header
    for event in sealed_events(size):
        yield export_line(event)
        if not changes and (change := _changed(event, keys)):
            changes.append((event.sequence or 0, f"Row {event.sequence} was changed: {change}."))


def _changed(event: AuditEvent, keys: KeyCheck) -> str:
    if column := _wrong_column(event):
        return f"its column {column} differs from its sealed bytes"
    person = keys.changed(sealed_body(event))
    return "" if person is None else f"the key of person {person} does not open what was sealed"


def _wrong_column(event: AuditEvent) -> str:
    """Return the first column that differs from the canonical bytes, or an empty string."""
    try:
        expected = event_columns(sealed_body(event))
    except (KeyError, TypeError, ValueError):
        return "canonical"
    if event.delivery not in ("", expected["request_id"]):
        return "delivery"
    return next((name for name, value in expected.items() if getattr(event, name) != value), "")
