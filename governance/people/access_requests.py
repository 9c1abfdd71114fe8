"""Requests for a first role: by people without any, to whoever grants roles platform-wide.

Granting a role answers a request; nothing else has to be done to it.
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
# An answer is expected within this time; later the request no longer shows.
OPEN_FOR = timedelta(days=30)
# Shortest time between two requests of one person.
AGAIN_AFTER = timedelta(days=1)


def access_request_create(*, actor: Principal, text: str) -> AccessRequest:
    """Ask for a role on one's own account.

    Raises:
        InvalidInput: no text, or one over its bound.
        WrongState: the person has a role, or an open request.
        QuotaExceeded: they asked within the last day.
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
                hint="Ask an administrator for another one.",
            )
        last = person.access_requests.order_by("-pk").first()
        now = timezone.now()
        if last is not None and now - last.created_at < AGAIN_AFTER:
            left = (last.created_at + AGAIN_AFTER - now).total_seconds()
            raise QuotaExceeded(
                f"{person.name} has requested a role within the last day.",
                code="already_requested",
                retry_after=max(1, int(left)),
            )
        if last is not None and last.closed_at is None:
            last.closed_at = now
            last.save(update_fields=["closed_at"])
        made = AccessRequest.objects.create(person=person, text=text)
        audit_record(
            actor=actor, action="person:request_access", subject=_subject(person), reason=text
        )
    return made


def access_request_decline(*, actor: Principal, request_id: int) -> AccessRequest:
    """Decline an open request; the person may ask again a day after they asked.

    Raises:
        NotFound: there is no such open request, or the actor may not see it.
        NotPermitted: the policy refuses.
    """
    with transaction.atomic():
        found = access_requests_open(actor).filter(pk=request_id).first()
        if found is None:
            raise NotFound(f"There is no open access request {request_id}.")
        decision = authorize(
            actor=actor, action=Action.ROLE_GRANT, resource=person_resource(found.person)
        )
        closed = AccessRequest.objects.filter(pk=found.pk, closed_at=None).update(
            closed_at=timezone.now(), closed_by_id=actor.person_id
        )
        if not closed:
            raise NotFound(f"There is no open access request {request_id}.")
        audit_record(
            actor=actor,
            action="person:decline_access",
            subject=_subject(found.person),
            decision=decision,
        )
    return found


def access_requests_open(actor: Principal) -> QuerySet[AccessRequest]:
    """Open requests, oldest first, for those who grant roles platform-wide; none for others."""
    rows = AccessRequest.objects.select_related("person").filter(
        ~Exists(RoleAssignment.objects.filter(person=OuterRef("person"))),
        closed_at=None,
        person__is_active=True,
        created_at__gte=timezone.now() - OPEN_FOR,
    )
    at_large = decide(active_policy(), actor, Action.ROLE_GRANT, PEOPLE_AT_LARGE, base_context())
    return rows if at_large.allowed else rows.none()


def own_access_request(actor: Principal) -> AccessRequest | None:
    """Return one's own latest request, whatever became of it."""
    if actor.person_id is None:
        return None
    return AccessRequest.objects.filter(person_id=actor.person_id).order_by("-pk").first()


def _subject(person: Person) -> Subject:
    return Subject("person", str(person.pk), person.name)
