"""Requests for a first role, from people who have none to people who grant roles platform-wide.

Granting a role closes the request; it needs no further step.
"""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.errors import InvalidInput, NotFound, QuotaExceeded, WrongState
from governance.people.models import AccessRequest, Person, RoleAssignment
from governance.people.selectors import PEOPLE_AT_LARGE, person_resource
from governance.people.signing_in import own_account
from governance.permissions import Action
from governance.policy.context import base_context
from governance.policy.engine import decide
from governance.policy.services import active_policy, authorize
from governance.principals import Principal

TEXT_MAX = 300
# An administrator answers within this time; after it the request is no longer listed.
OPEN_FOR = timedelta(days=30)
# Shortest time between two requests of one person.
AGAIN_AFTER = timedelta(days=1)


def access_request_create(*, actor: Principal, text: str) -> AccessRequest:
    """Request a role for one's own account.

    Raises:
        InvalidInput: no text, or one over its bound.
        WrongState: the person has a role, or an open request.
        QuotaExceeded: the person made a request within the last day.
    """
    text = text.strip()
    if not text or len(text) > TEXT_MAX or not text.isprintable():
        raise InvalidInput(
            f"A request has 1 to {TEXT_MAX} printable characters.",
            fields={"text": ["is empty, too long or not printable"]},
        )
    with transaction.atomic():
        person = Person.objects.select_for_update(no_key=True).get(pk=own_account(actor).pk)
        if person.role_assignments.exists():
            raise WrongState(
                f"{person.name} has a role; there is nothing to request.",
                hint="Ask an administrator for another role.",
            )
        last = person.access_requests.order_by("-pk").first()
        now = timezone.now()
        if last is not None and now - last.created_at < AGAIN_AFTER:
            wait_s = (last.created_at + AGAIN_AFTER - now).total_seconds()
            raise QuotaExceeded(
                f"{person.name} has requested a role within the last day.",
                code="already_requested",
                retry_after=max(1, int(wait_s)),
            )
        if last is not None and last.closed_at is None:
            last.closed_at = now
            last.save(update_fields=["closed_at"])
        request = AccessRequest.objects.create(person=person, text=text)
        audit_record(
            actor=actor, action="person:request_access", subject=_subject(person), reason=text
        )
    return request


def access_request_decline(*, actor: Principal, request_id: int) -> AccessRequest:
    """Decline an open request; the person may request again a day after the first request.

    Raises:
        NotFound: the request does not exist or is closed, or the actor may not see it.
        NotPermitted: the policy denies it.
    """
    with transaction.atomic():
        request = access_requests_open(actor).filter(pk=request_id).first()
        if request is None:
            raise NotFound(f"There is no open access request {request_id}.")
        decision = authorize(
            actor=actor, action=Action.ROLE_GRANT, resource=person_resource(request.person)
        )
        closed = AccessRequest.objects.filter(pk=request.pk, closed_at=None).update(
            closed_at=timezone.now(), closed_by_id=actor.person_id
        )
        if not closed:
            raise NotFound(f"There is no open access request {request_id}.")
        audit_record(
            actor=actor,
            action="person:decline_access",
            subject=_subject(request.person),
            decision=decision,
        )
    return request


def access_requests_open(actor: Principal) -> QuerySet[AccessRequest]:
    """Open requests, oldest first, for those who grant roles platform-wide; none for others."""
    rows = AccessRequest.objects.select_related("person").filter(
        ~Exists(RoleAssignment.objects.filter(person=OuterRef("person"))),
        closed_at=None,
        person__is_active=True,
        created_at__gte=timezone.now() - OPEN_FOR,
    )
    decision = decide(active_policy(), actor, Action.ROLE_GRANT, PEOPLE_AT_LARGE, base_context())
    return rows if decision.allowed else rows.none()


def own_access_request(actor: Principal) -> AccessRequest | None:
    """Return the actor's own latest request, open or closed."""
    if actor.person_id is None:
        return None
    return AccessRequest.objects.filter(person_id=actor.person_id).order_by("-pk").first()


def _subject(person: Person) -> Subject:
    return Subject("person", str(person.pk), person.name)
