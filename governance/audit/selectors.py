"""Reading the audit log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from django.db.models import QuerySet
from django.utils import timezone

from governance.audit.exports.log import export_header, export_line, sealed_events
from governance.audit.models import AuditCheckpoint, AuditEvent
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
    """The events that the policy lets `actor` see, newest first; filters that are empty are off.

    They mean what `EventFilter` says. All of them, however many: a list shows one page after
    another, which `audit_event_page` makes.
    """
    given = EventFilter(
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
    return events.filter(holds(actor, given)).order_by("-id")


def audit_event_get(*, actor: Principal, id: int) -> AuditEvent:  # noqa: A002 (the contract's word)
    """One event, opened: with the names in it.

    Raises:
        NotFound: there is none, or the actor may not see it.
    """
    event = audit_events_visible_to(actor).filter(pk=id).first()
    if event is None:
        raise NotFound(f"Audit event {id} does not exist, or you may not see it.")
    return opened([event])[0]


def event_text(event: AuditEvent) -> str:
    """The canonical bytes to be shown; what is not UTF-8, which only tampering writes, replaced."""
    return bytes(event.canonical).decode("utf-8", "replace")


def latest_checkpoint() -> AuditCheckpoint | None:
    """The newest signed head; None before the first event is sealed."""
    return AuditCheckpoint.objects.first()


def audit_checkpoints_visible_to(actor: Principal) -> QuerySet[AuditCheckpoint]:
    """Every signed head, newest first, for who may see the whole log.

    Raises:
        NotFound, NotPermitted: the actor may not.
    """
    authorize(actor=actor, action=Action.AUDIT_VIEW, resource=Resource(type="audit"))
    # A tree head is a line each; what the sealer goes on from is for it alone.
    return AuditCheckpoint.objects.defer("frontier").order_by("-id")


def sealing_lag_s() -> float:
    """Seconds that the oldest unsealed event has waited; 0 when all are sealed."""
    unsealed = AuditEvent.objects.filter(sequence__isnull=True).order_by("id")
    return _seconds_since(unsealed.values_list("occurred_at", flat=True).first())


def unsealed_events() -> int:
    """Return the number of events without a seal, counted up to `COUNTED`."""
    return AuditEvent.objects.filter(sequence__isnull=True)[:COUNTED].count()


def publish_lag_s() -> float:
    """Seconds that the oldest unpublished head has waited; 0 when all are published."""
    waiting = AuditCheckpoint.objects.filter(published_at__isnull=True).order_by("tree_size")
    return _seconds_since(waiting.values_list("created_at", flat=True).first())


def _seconds_since(moment: datetime | None) -> float:
    return 0.0 if moment is None else max(0.0, (timezone.now() - moment).total_seconds())


def verify_restored(*, checkpoints: Sequence[str], tiles: Place | None) -> VerificationReport:
    """As `verify_live`, against checkpoints and tiles that the caller has."""
    return _verify(tiles, checkpoints)


def verify_live() -> VerificationReport:
    """Check the database itself: as `verify_export`, and that each search column repeats its event,
    and every checkpoint, subtree and person's key is what the events say.

    The published checkpoint and tiles are taken into account when they are there; a log whose
    second place cannot be read is not verified.
    """
    place = second_place()
    try:
        # Before the header: it is published after it is kept, so the header's head is never older.
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
    found: list[tuple[int, str]] = []
    report = verify_export(
        _checked_lines(found),
        public_keys=audit_public_keys(),
        checkpoints=outside,
        tiles=place,
    )
    if report.ok and not found and (stray := stray_event()) is not None:
        found.append((stray, f"Row {stray} was added: no checkpoint covers it."))
    if found and (report.first_bad is None or found[0][0] <= report.first_bad):
        sequence, message = found[0]
        return replace(report, ok=False, first_bad=sequence, message=message)
    if report.ok and (message := fault_in_records(report.events)):
        return replace(report, ok=False, message=message)
    return report


def _checked_lines(found: list[tuple[int, str]]) -> Iterator[str]:
    """The export, noting in `found` the first row of which something other than its bytes changed:
    a column that repeats them, or the key that decrypts their personal data."""
    size, header = export_header()
    keys = KeyCheck()
    yield header
    for event in sealed_events(size):
        yield export_line(event)
        if not found and (change := _changed(event, keys)):
            found.append((event.sequence or 0, f"Row {event.sequence} was changed: {change}."))


def _changed(event: AuditEvent, keys: KeyCheck) -> str:
    if column := _wrong_column(event):
        return f"its column {column} is not what its sealed bytes say"
    person = keys.changed(sealed_body(event))
    return "" if person is None else f"the key of person {person} does not open what was sealed"


def _wrong_column(event: AuditEvent) -> str:
    """The first column that disagrees with the canonical bytes; empty when none does."""
    try:
        expected = event_columns(sealed_body(event))
    except (KeyError, TypeError, ValueError):
        return "canonical"
    if event.delivery not in ("", expected["request_id"]):
        return "delivery"
    return next((name for name, value in expected.items() if getattr(event, name) != value), "")
