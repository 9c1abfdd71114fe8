"""Services for stored responses: create, complete, delete, and set their retention."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Count, DateTimeField, ExpressionWrapper, F, Sum
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.errors import InvalidInput, NotFound, WrongState
from governance.people.models import Department, Person
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.services import authorize, authorize_binding
from governance.principals import Principal, background, service_principal
from registry.canonical import canonical_json
from registry.expiry import expire_in_rounds, record_expired
from registry.resources import department_resource
from registry.responses.models import (
    RETENTION_MAX_DAYS,
    ResponseRetention,
    ResponseState,
    StoredResponse,
)
from registry.responses.selectors import CHAT, RESPONSE, response_get
from registry.validation import storable_json

# Limits of one department.
RESPONSES_MAX = 50_000
BYTES_MAX = 1024**3
# Longer than any transaction that stores a response.
_STORED_WITHIN = timedelta(hours=1)
# Maximum deletions in one transaction, and transactions in one minute.
_EXPIRED_AT_ONCE = 1_000
_EXPIRIES = 50


def response_resource(response: StoredResponse) -> Resource:
    """Return a stored response as a resource of policy decisions."""
    return Resource(
        type="response",
        id=response.pk,
        department=response.department.slug,
        attributes={
            "classification": response.classification,
            "deployment": response.deployment,
        },
    )


def response_subject(response: StoredResponse) -> Subject:
    """Return the response as a subject of audit events, without content."""
    return Subject("response", response.pk, f"{response} of {response.deployment}")


@transaction.atomic
def response_create(
    *,
    actor: Principal,
    department: Department,
    sender: str,
    id: str,  # noqa: A002
    deployment: str,
    ancestors: Sequence[str],
    items: Sequence[dict[str, Any]],
    response: dict[str, Any],
    classification: str = "",
    release: int | None = None,
) -> StoredResponse | None:
    """Store the beginning of a response; return None if the department keeps no responses.

    Args:
        department: The department that pays for the credential's requests.
        sender: Public ID of the credential.
        ancestors: IDs of the earlier responses of the conversation, the oldest first.
        items: Input items of the request, without those of its ancestors.
        response: The current response, with the status `in_progress`.
        classification: The highest declared for the conversation.
        release: The release that answers.

    Raises:
        InvalidInput: An item contains a NUL character.
        NotPermitted: The policy denies it.
        WrongState: The department has reached its limit of responses or bytes.
    """
    resource = department_resource("response", department)
    decision = authorize(actor=actor, action=Action.RESPONSE_CREATE, resource=resource)
    retention = ResponseRetention.objects.filter(department=department).first()
    if retention is None or not retention.days:
        return None
    if storable_json(items) != list(items) or storable_json(response) != response:
        raise InvalidInput(
            "The request contains a NUL character, which cannot be stored.",
            hint="Remove it, or send store: false.",
        )
    _check_room(department)
    row = StoredResponse.objects.create(
        id=id,
        department=department,
        deployment=deployment,
        release=release,
        sender=sender,
        person_id=actor.person_id,
        classification=classification,
        ancestors=list(ancestors),
        items=list(items),
        response=response,
        size=len(canonical_json([*items, response])),
        expires_at=timezone.now() + timedelta(days=retention.days),
    )
    audit_record(
        actor=actor,
        action=Action.RESPONSE_CREATE,
        subject=response_subject(row),
        department=department.slug,
        data={"deployment": deployment, "continues": len(ancestors), "days": retention.days},
        decision=decision,
    )
    return row


def _check_room(department: Department) -> None:
    stored = StoredResponse.objects.filter(department=department).aggregate(
        count=Count("pk"), size=Sum("size")
    )
    if stored["count"] >= RESPONSES_MAX or (stored["size"] or 0) >= BYTES_MAX:
        raise WrongState(
            f"Department {department.slug} stores {stored['count']:,} responses with "
            f"{stored['size'] or 0:,} bytes; the limit is reached.",
            code="too_many_responses",
            hint="Send store: false, delete responses, or shorten the retention.",
        )


def response_finish(
    *,
    id: str,  # noqa: A002
    response: dict[str, Any] | None,
    release: int | None = None,
) -> bool:
    """Complete a stored response with the answer, or as failed; return whether it still existed.
    `release` answered, which may be another one than at the beginning.

    The audit event is its creation; the ledger records how the request ended.
    """
    rows = StoredResponse.objects.filter(pk=id, state=ResponseState.IN_PROGRESS)
    if response is None:
        return rows.update(state=ResponseState.FAILED) > 0
    storable = storable_json(response)
    size = F("size") + len(canonical_json(storable))
    return (
        rows.update(state=ResponseState.FINISHED, response=storable, size=size, release=release) > 0
    )


@transaction.atomic
def response_delete(
    *,
    actor: Principal,
    id: str,  # noqa: A002
    deployments: Collection[str] = (),
    kind: str = RESPONSE,
) -> None:
    """Delete a stored response; `deployments` and `kind` as for `response_get`. The conversations
    that contain it can no longer be continued.

    Raises:
        NotFound: The response does not exist, or the actor may not know of it.
        NotPermitted: The policy denies it.
    """
    response = response_get(actor=actor, id=id, deployments=deployments, kind=kind)
    decision = authorize(
        actor=actor, action=Action.RESPONSE_DELETE, resource=response_resource(response)
    )
    audit_record(
        actor=actor,
        action=Action.RESPONSE_DELETE,
        subject=response_subject(response),
        department=response.department.slug,
        data={"deployment": response.deployment, "state": response.state},
        decision=decision,
    )
    response.delete()


@transaction.atomic
def chat_label(
    *,
    actor: Principal,
    id: str,  # noqa: A002
    metadata: Mapping[str, str],
    deployments: Collection[str] = (),
) -> StoredResponse:
    """Replace the metadata of a stored chat; `deployments` as for `response_get`.

    Raises:
        InvalidInput: The metadata contain a NUL character.
        NotFound: The chat has no answer yet, does not exist, or the actor may not know of it.
        NotPermitted: The policy denies it.
    """
    chat = response_get(actor=actor, id=id, deployments=deployments, kind=CHAT)
    decision = authorize(
        actor=actor, action=Action.RESPONSE_UPDATE, resource=response_resource(chat)
    )
    if storable_json(metadata) != metadata:
        raise InvalidInput("metadata contains a NUL character.", fields={"metadata": ["No NUL."]})
    row = StoredResponse.objects.select_for_update().filter(pk=id).first()
    if row is None or row.state != ResponseState.FINISHED:
        raise NotFound(f"Chat {id[:64]!r} has no answer.", code="response_not_found")
    row.response = {**row.response, "metadata": dict(metadata)}
    row.size = len(canonical_json([*row.items, row.response]))
    row.save(update_fields=["response", "size"])
    audit_record(
        actor=actor,
        action=Action.RESPONSE_UPDATE,
        subject=response_subject(chat),
        department=chat.department.slug,
        data={"deployment": chat.deployment, "metadata": len(metadata)},
        decision=decision,
    )
    return row


@transaction.atomic
def retention_set(*, actor: Principal, department: Department, days: int) -> ResponseRetention:
    """Set the number of days for which a department keeps responses; 0 deletes all and stores none.

    A shorter time also applies to stored responses, a longer one only to new ones. A response that
    is stored at the same moment gets the shorter time within a minute (`responses_expire_due`).

    Raises:
        InvalidInput: The number is not from 0 to 365.
        NotPermitted, ProofRequired: The policy denies it, or requires a fresh second factor.
    """
    resource = department_resource("response", department)
    decision = authorize_binding(
        actor=actor,
        action=Action.RESPONSE_RETAIN,
        resource=resource,
        doing=f"setting how long {department.slug} keeps responses",
    )
    if not 0 <= days <= RETENTION_MAX_DAYS:
        raise InvalidInput(
            f"Responses are kept for 0 to {RETENTION_MAX_DAYS} days.",
            fields={"days": [f"From 0 to {RETENTION_MAX_DAYS}."]},
        )
    before = ResponseRetention.objects.filter(department=department).first()
    retention, _ = ResponseRetention.objects.update_or_create(
        department=department, defaults={"days": days}
    )
    deleted = 0
    if days == 0:
        deleted, _ = StoredResponse.objects.filter(department=department).delete()
    else:
        _shorten(retention)
    audit_record(
        actor=actor,
        action=Action.RESPONSE_RETAIN,
        subject=Subject("department", department.slug, department.name),
        department=department.slug,
        data={"days": days, "before": before.days if before else 0, "deleted": deleted},
        decision=decision,
    )
    return retention


def _shorten(setting: ResponseRetention) -> None:
    """Shorten the lifetimes of the department's responses to its current retention."""
    latest = ExpressionWrapper(
        F("created_at") + timedelta(days=setting.days), output_field=DateTimeField()
    )
    rows = StoredResponse.objects.filter(department_id=setting.department_id, expires_at__gt=latest)
    rows.update(expires_at=latest)


def responses_forget_person(person: Person) -> dict[str, int]:
    """Delete the responses to a person's requests in the playground; return the count."""
    deleted, _ = StoredResponse.objects.filter(person=person).delete()
    return {"responses": deleted}


def responses_expire_due() -> int:
    """Delete expired responses; return their number. For the controller.

    First applies recently shortened retentions again: a transaction that stored a response may have
    read the retention before the change, and committed after it.
    """
    for row in ResponseRetention.objects.filter(updated_at__gte=timezone.now() - _STORED_WITHIN):
        _shorten(row)
    return expire_in_rounds(_expire_some, at_once=_EXPIRED_AT_ONCE, rounds=_EXPIRIES)


def _expire_some() -> int:
    controller = service_principal("controller")
    due = StoredResponse.objects.filter(expires_at__lte=timezone.now())
    numbers = list(due.values_list("pk", flat=True)[:_EXPIRED_AT_ONCE])
    if not numbers:
        return 0
    with transaction.atomic(), background("responses", controller):
        rows = StoredResponse.objects.filter(pk__in=numbers).select_related("department")
        departments = [row.department for row in rows.only("department")]
        rows.order_by().delete()
        record_expired(actor=controller, action="response:expire", departments=departments)
    return len(numbers)
