"""Writing the audit log: in the transaction of the change, or in its own for refusals."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.audit.personal import person_keys, put_in_boxes
from governance.audit.tree.merkle import leaf_hash
from governance.errors import AttemptBase, DomainError, InvalidInput, TooLarge
from governance.policy.decisions import Authorization
from governance.principals import Principal, PrincipalKind, RequestContext, request_context

CANONICAL_VERSION = 2
NONCE_BYTES = 16
DATA_MAX_BYTES = 64 * 1024
INSERT_BATCH = 1000
# Fields of the canonical body that columns of the same name repeat.
COLUMNS = (
    "actor_kind",
    "actor_id",
    "actor_name",
    "department",
    "action",
    "outcome",
    "subject_type",
    "subject_id",
    "subject_name",
    "reason",
    "request_id",
)
_INSERTED = (*COLUMNS, "occurred_at", "policy_version", "delivery", "canonical", "leaf_hash")
_INSERT = (
    f"INSERT INTO governance_auditevent ({', '.join(_INSERTED)}) "  # noqa: S608 (our own names)
    f"VALUES ({', '.join(['%s'] * len(_INSERTED))}) RETURNING id"
)
_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_WIDTHS: dict[str, int] = {
    column.name: column.max_length
    for column in AuditEvent._meta.fields
    if column.max_length is not None
}


@dataclass(frozen=True, slots=True)
class Subject:
    """The object of an action: its type, its ID as text, and its display name.

    `person` is the ID of the person that the object is about, if any: the event's details are then
    encrypted with that person's key. Leave it out if the subject itself is a person.
    """

    type: str
    id: str
    name: str
    person: int | None = None

    @property
    def concerns(self) -> int | None:
        """ID of the person that the event is about, or None."""
        if self.person is None and self.type == "person" and self.id.isdecimal():
            return int(self.id)
        return self.person


@dataclass(frozen=True, slots=True)
class Attempt(AttemptBase):
    """A refused attempt: actor, action and subject; part of the error.

    `decision` is the policy's decision and its input. `context` and `at` are the refused request
    and its time, if it is recorded later.
    """

    actor: Principal
    action: str
    subject: Subject
    department: str = ""
    decision: Authorization | None = None
    context: RequestContext | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An event to record. `context` and `occurred_at` default to the current request and now.

    `decision` is the actor's own permission for the recorded action; it determines the policy's
    version and is stored in `data["decision"]`. `policy_version` is for events that follow from a
    decision of an earlier policy. `delivery` is a key for events that may be delivered repeatedly
    but must be recorded once.
    """

    actor: Principal
    action: str
    subject: Subject
    outcome: str = "allowed"
    reason: str = ""
    department: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    decision: Authorization | None = None
    policy_version: int | None = None
    occurred_at: datetime | None = None
    context: RequestContext | None = None
    delivery: str = ""


def audit_record(
    *,
    actor: Principal,
    action: str,
    subject: Subject,
    outcome: str = "allowed",
    reason: str = "",
    department: str = "",
    data: dict[str, Any] | None = None,
    decision: Authorization | None = None,
    policy_version: int | None = None,
    occurred_at: datetime | None = None,
    context: RequestContext | None = None,
) -> AuditEvent:
    """Record one event in the caller's transaction, so that both commit or neither does.

    Texts longer than their column are cut; `data` is JSON of at most 64 KiB. For the other
    arguments see `AuditEntry`.

    Raises:
        RuntimeError: called outside a transaction, or `decision` is another actor's.
        TooLarge, InvalidInput: `data` is over its limit, or not JSON.
    """
    _require_transaction()
    entry = AuditEntry(
        actor=actor,
        action=action,
        subject=subject,
        outcome=outcome,
        reason=reason,
        department=department,
        data=data or {},
        decision=decision,
        policy_version=policy_version,
        occurred_at=occurred_at,
        context=context,
    )
    return _insert(_build(entry, person_keys(_concerned(entry))))


def audit_record_many(entries: Iterable[AuditEntry]) -> int:
    """Record a batch in the caller's transaction; return the number of entries.

    Silently skips entries whose `delivery` is already recorded.

    Raises:
        RuntimeError, TooLarge, InvalidInput: as `audit_record`; then nothing is recorded.
    """
    _require_transaction()
    batch = list(entries)
    keys = person_keys(person for entry in batch for person in _concerned(entry))
    events = [_build(entry, keys) for entry in batch]
    AuditEvent.objects.bulk_create(events, batch_size=INSERT_BATCH, ignore_conflicts=True)
    return len(events)


def attempt_of(error: DomainError) -> Attempt | None:
    """Return the refused attempt of the error, or None."""
    return error.attempt if isinstance(error.attempt, Attempt) else None


def audit_refusal(error: DomainError) -> None:
    """Record the error's refused attempt, if it has one, in a transaction of its own.

    Raises:
        RuntimeError: called inside a transaction, whose rollback would lose the record.
    """
    attempt = attempt_of(error)
    if attempt is None:
        return
    with transaction.atomic(durable=True):
        audit_record(
            actor=attempt.actor,
            action=attempt.action,
            subject=attempt.subject,
            outcome="denied",
            reason=error.message,
            department=attempt.department,
            data={"code": error.code, "status": error.status},
            decision=attempt.decision,
            occurred_at=attempt.at,
            context=attempt.context,
        )


def event_columns(body: dict[str, Any]) -> dict[str, Any]:
    """Return the correct values of the search columns for a canonical `body`.

    Raises:
        KeyError, TypeError, ValueError: `body` is not a canonical event.
    """
    columns: dict[str, Any] = {name: body[name] for name in COLUMNS}
    columns["occurred_at"] = datetime.fromisoformat(body["occurred_at"])
    columns["policy_version"] = body["policy_version"]
    return columns


def _require_transaction() -> None:
    if not connection.in_atomic_block:
        raise RuntimeError(
            "An audit event belongs to the transaction of the change that it records; "
            "open transaction.atomic() around both."
        )


def _insert(event: AuditEvent) -> AuditEvent:
    """Do `event.save(force_insert=True)` in a third of the time, because every change needs it."""
    with connection.cursor() as cursor:
        cursor.execute(_INSERT, [getattr(event, name) for name in _INSERTED])
        (event.pk,) = cursor.fetchone()
    event._state.adding = False
    return event


def _concerned(entry: AuditEntry) -> list[int]:
    """Return the IDs of the people in an event: the acting person and the person concerned."""
    return [person for person in (_acting(entry.actor), entry.subject.concerns) if person]


def _acting(actor: Principal) -> int | None:
    """Return the ID of the acting person, who uses a session or a personal token."""
    if actor.person_id is None and actor.kind is PrincipalKind.PERSON and actor.id.isdecimal():
        return int(actor.id)
    return actor.person_id


def _build(entry: AuditEntry, keys: Mapping[int, bytes]) -> AuditEvent:
    context = entry.context or request_context.get()
    data, policy_version = entry.data, entry.policy_version
    if entry.decision is not None:
        if entry.decision.inputs.actor != entry.actor:
            raise RuntimeError(
                f"The audit event {entry.action} of {entry.actor.name} was given a decision about "
                f"{entry.decision.inputs.actor.name}; pass the actor's own."
            )
        data = {"decision": entry.decision.to_json(), **data}
        policy_version = entry.decision.policy_version
    occurred_at = (entry.occurred_at or timezone.now()).astimezone(UTC)
    raw = {
        "actor_kind": entry.actor.kind,
        "actor_id": entry.actor.id,
        "actor_name": entry.actor.name,
        "department": entry.department,
        "action": entry.action,
        "outcome": entry.outcome,
        "subject_type": entry.subject.type,
        "subject_id": entry.subject.id,
        "subject_name": entry.subject.name,
        "reason": entry.reason,
        "request_id": context.request_id,
    }
    body = {
        "v": CANONICAL_VERSION,
        **{name: _fit(str(text), _WIDTHS[name]) for name, text in raw.items()},
        "occurred_at": occurred_at.isoformat(timespec="microseconds"),
        "client_address": _fit(context.client_address, 64),
        "policy_version": policy_version,
        "data": data,
        "nonce": secrets.token_hex(NONCE_BYTES),
    }
    if data:
        _check_data(entry, data)
    body = put_in_boxes(body, actor=_acting(entry.actor), subject=entry.subject.concerns, keys=keys)
    canonical = _encode(body)
    return AuditEvent(
        **{name: body[name] for name in COLUMNS},
        occurred_at=occurred_at,
        policy_version=policy_version,
        delivery=_fit(entry.delivery, _WIDTHS["delivery"]),
        canonical=canonical,
        leaf_hash=leaf_hash(canonical),
    )


def _check_data(entry: AuditEntry, data: Mapping[str, Any]) -> None:
    label = f"{entry.action} on {entry.subject.type} {entry.subject.id}"
    try:
        size = len(_encode(data))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"The data of the audit event {label} is not JSON ({error}); it was not recorded."
        ) from error
    if size > DATA_MAX_BYTES:
        raise TooLarge(
            f"The audit event {label} has more than {DATA_MAX_BYTES} bytes of data; "
            "it was not recorded.",
            hint="Record digests and IDs, and store the documents elsewhere.",
        )


def _encode(value: Any) -> bytes:
    """Return compact JSON with sorted keys in UTF-8; lone surrogates become '?'."""
    return _JSON.encode(value).encode("utf-8", "replace")


def _fit(text: str, width: int) -> str:
    """Cut `text` to `width` characters; replace NUL and surrogates, which PostgreSQL rejects."""
    if len(text) <= width and text.isascii() and "\x00" not in text:
        return text
    clean = text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
    return clean if len(clean) <= width else clean[: width - 1] + "…"
