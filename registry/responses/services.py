"""Store responses, delete them, and set how long a department keeps them."""

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

# Of one department.
RESPONSES_MAX = 50_000
BYTES_MAX = 1024**3
# Longer than any transaction that stores one.
_STORED_WITHIN = timedelta(hours=1)
# In one transaction, and so many transactions a minute.
_EXPIRED_AT_ONCE = 1_000
_EXPIRIES = 50


def response_resource(response: StoredResponse) -> Resource:
    """Return what policy decisions see of a stored response."""
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
    """Return the response as the audit log names it: without content."""
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
) -> StoredResponse | None:
    """Store the beginning of a response; None where the department keeps none.

    Args:
        department: The department that the credential pays for.
        sender: Public ID of the credential.
        ancestors: IDs of the responses that it continues, the oldest first.
        items: Input items of the request, without those of its ancestors.
        response: The response as it stands, `in_progress`.
        classification: The highest that was declared for the conversation.

    Raises:
        InvalidInput: An item contains a NUL character.
        NotPermitted: The policy forbids it.
        WrongState: The department stores as many responses, or bytes, as it may.
    """
    resource = department_resource("response", department)
    decision = authorize(actor=actor, action=Action.RESPONSE_CREATE, resource=resource)
    kept = ResponseRetention.objects.filter(department=department).first()
    if kept is None or not kept.days:
        return None
    if storable_json(items) != list(items) or storable_json(response) != response:
        raise InvalidInput(
            "The request contains a NUL character, which cannot be stored.",
            hint="Remove it, or send store: false.",
        )
    _check_room(department)
    made = StoredResponse.objects.create(
        id=id,
        department=department,
        deployment=deployment,
        sender=sender,
        person_id=actor.person_id,
        classification=classification,
        ancestors=list(ancestors),
        items=list(items),
        response=response,
        size=len(canonical_json([*items, response])),
        expires_at=timezone.now() + timedelta(days=kept.days),
    )
    audit_record(
        actor=actor,
        action=Action.RESPONSE_CREATE,
        subject=response_subject(made),
        department=department.slug,
        data={"deployment": deployment, "continues": len(ancestors), "days": kept.days},
        decision=decision,
    )
    return made


def _check_room(department: Department) -> None:
    held = StoredResponse.objects.filter(department=department).aggregate(
        count=Count("pk"), size=Sum("size")
    )
    if held["count"] >= RESPONSES_MAX or (held["size"] or 0) >= BYTES_MAX:
        raise WrongState(
            f"Department {department.slug} stores {held['count']:,} responses with "
            f"{held['size'] or 0:,} bytes; there is no room for more.",
            code="too_many_responses",
            hint="Send store: false, delete responses, or shorten the retention.",
        )


def response_finish(*, id: str, response: dict[str, Any] | None) -> bool:  # noqa: A002
    """Complete a stored response with the answer, or as failed; false if it is gone.

    Its creation is the event; the ledger records how the request ended.
    """
    rows = StoredResponse.objects.filter(pk=id, state=ResponseState.IN_PROGRESS)
    if response is None:
        return rows.update(state=ResponseState.FAILED) > 0
    kept = storable_json(response)
    size = F("size") + len(canonical_json(kept))
    return rows.update(state=ResponseState.FINISHED, response=kept, size=size) > 0


@transaction.atomic
def response_delete(
    *,
    actor: Principal,
    id: str,  # noqa: A002
    deployments: Collection[str] = (),
    kind: str = RESPONSE,
) -> None:
    """Delete a stored response; `deployments` and `kind` as for `response_get`. Responses that
    continue it cannot be continued any more.

    Raises:
        NotFound: There is none that the actor may know of.
        NotPermitted: The policy forbids it.
    """
    found = response_get(actor=actor, id=id, deployments=deployments, kind=kind)
    decision = authorize(
        actor=actor, action=Action.RESPONSE_DELETE, resource=response_resource(found)
    )
    audit_record(
        actor=actor,
        action=Action.RESPONSE_DELETE,
        subject=response_subject(found),
        department=found.department.slug,
        data={"deployment": found.deployment, "state": found.state},
        decision=decision,
    )
    found.delete()


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
        NotFound: There is none that the actor may know of, or it has no answer yet.
        NotPermitted: The policy forbids it.
    """
    found = response_get(actor=actor, id=id, deployments=deployments, kind=CHAT)
    decision = authorize(
        actor=actor, action=Action.RESPONSE_UPDATE, resource=response_resource(found)
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
        subject=response_subject(found),
        department=found.department.slug,
        data={"deployment": found.deployment, "metadata": len(metadata)},
        decision=decision,
    )
    return row


@transaction.atomic
def retention_set(*, actor: Principal, department: Department, days: int) -> ResponseRetention:
    """Set for how many days a department keeps responses; 0 deletes all and stores no more.

    A shorter time applies to responses that are stored already, a longer one to new ones. One that
    is being stored at this moment gets the shorter time within a minute (`responses_expire_due`).

    Raises:
        InvalidInput: The number is not from 0 to 365.
        NotPermitted, ProofRequired: The policy forbids it, or wants a fresh second factor.
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
    kept, _ = ResponseRetention.objects.update_or_create(
        department=department, defaults={"days": days}
    )
    deleted = 0
    if days == 0:
        deleted, _ = StoredResponse.objects.filter(department=department).delete()
    else:
        _shorten(kept)
    audit_record(
        actor=actor,
        action=Action.RESPONSE_RETAIN,
        subject=Subject("department", department.slug, department.name),
        department=department.slug,
        data={"days": days, "before": before.days if before else 0, "deleted": deleted},
        decision=decision,
    )
    return kept


def _shorten(kept: ResponseRetention) -> None:
    """Let no response of the department last longer than it keeps responses now."""
    latest = ExpressionWrapper(
        F("created_at") + timedelta(days=kept.days), output_field=DateTimeField()
    )
    rows = StoredResponse.objects.filter(department_id=kept.department_id, expires_at__gt=latest)
    rows.update(expires_at=latest)


def responses_forget_person(person: Person) -> dict[str, int]:
    """Delete what a person asked in the playground; returns the count."""
    deleted, _ = StoredResponse.objects.filter(person=person).delete()
    return {"responses": deleted}


def responses_expire_due() -> int:
    """Delete expired responses; returns how many. For the controller.

    A transaction that stored a response may have read the retention before it was shortened, and
    have committed after it.
    """
    for kept in ResponseRetention.objects.filter(updated_at__gte=timezone.now() - _STORED_WITHIN):
        _shorten(kept)
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
