"""Decisions on requests for privileged roles, by an administrator other than the requester."""

from __future__ import annotations

import threading

from django.db import IntegrityError, close_old_connections, transaction
from django.db.models import QuerySet
from django.utils import timezone

from governance.audit.services import Attempt
from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from governance.people.credentials import end_access_without_second_factor, sign_in_admins_of
from governance.people.groups import group_mapping_give
from governance.people.models import (
    REASON_MAX,
    DirectoryGroup,
    RoleAssignment,
    RoleRequest,
    RoleRequestState,
)
from governance.people.privileges import (
    role_request_locked,
    role_request_set_state,
    role_request_subject,
)
from governance.people.roles import record_role, role_words
from governance.people.selectors import (
    PEOPLE_AT_LARGE,
    principal_for_person,
    sees_everyone,
)
from governance.permissions import Action
from governance.policy.context import base_context
from governance.policy.decisions import Authorization
from governance.policy.engine import decide
from governance.policy.services import active_policy, authorize, authorize_binding
from governance.principals import Principal, service_principal

EXPIRE_S = 60.0


def role_requests_visible_to(actor: Principal) -> QuerySet[RoleRequest]:
    """Return the requests, with their people loaded, if the actor sees everyone; else none."""
    rows = RoleRequest.objects.select_related("person", "requested_by", "decided_by")
    return rows if sees_everyone(actor) else rows.none()


def role_request_get(*, actor: Principal, request_id: int) -> RoleRequest:
    """Return the request. Raises NotFound if it does not exist, or the actor may not see it."""
    request = role_requests_visible_to(actor).filter(pk=request_id).first()
    if request is None:
        raise NotFound(f"There is no role request {request_id}.")
    return request


def role_request_approve(*, actor: Principal, request_id: int) -> RoleRequest:
    """Approve a request, and grant the role at once.

    Raises:
        NotFound, NotPermitted: it does not exist; the policy denies it; the actor has no fresh
            second factor, requested it, or would get the role.
        WrongState: it is not pending or has expired; the requester may no longer grant roles; or
            the person holds the role or is inactive.
    """
    with transaction.atomic():
        request, decision = _locked(actor, request_id, "approving")
        _require_second_administrator(actor, request, decision)
        _require_current(request)
        role_request_set_state(
            actor=actor,
            request=request,
            state=RoleRequestState.APPROVED,
            decision=decision,
        )
        _give(actor, request, decision)
    return request


def role_request_reject(*, actor: Principal, request_id: int, reason: str) -> RoleRequest:
    """Reject a request for good.

    Raises:
        NotFound, NotPermitted: as `role_request_approve`; the requester can withdraw instead.
        InvalidInput: no reason, or one over its bound.
        WrongState: it is not pending.
    """
    reason = reason.strip()
    if not reason or len(reason) > REASON_MAX or not reason.isprintable():
        raise InvalidInput(
            f"A reason has 1 to {REASON_MAX} printable characters.",
            fields={"reason": ["is empty, too long or not printable"]},
        )
    with transaction.atomic():
        request, decision = _locked(actor, request_id, "rejecting")
        _require_second_administrator(actor, request, decision)
        role_request_set_state(
            actor=actor,
            request=request,
            state=RoleRequestState.REJECTED,
            reason=reason,
            decision=decision,
        )
    return request


def role_request_withdraw(*, actor: Principal, request_id: int) -> RoleRequest:
    """Withdraw a request, for any actor who may grant roles.

    Raises:
        NotFound, NotPermitted: it does not exist, or the policy denies it.
        WrongState: it is not pending.
    """
    with transaction.atomic():
        decision = authorize(actor=actor, action=Action.ROLE_GRANT, resource=PEOPLE_AT_LARGE)
        request = role_request_locked(request_id)
        role_request_set_state(
            actor=actor,
            request=request,
            state=RoleRequestState.WITHDRAWN,
            decision=decision,
        )
    return request


def run(stop: threading.Event) -> None:
    """Expire due requests until `stop` is set; a loop of the controller."""
    while not stop.is_set():
        close_old_connections()
        role_requests_expire_due()
        stop.wait(EXPIRE_S)


def role_requests_expire_due() -> int:
    """Expire requests that were not decided in time; returns their number."""
    controller = service_principal("controller")
    with transaction.atomic():
        rows = RoleRequest.objects.select_for_update(of=("self",), skip_locked=True)
        due = rows.filter(state=RoleRequestState.PENDING, expires_at__lte=timezone.now())
        for request in (requests := list(due.select_related("person"))):
            role_request_set_state(
                actor=controller, request=request, state=RoleRequestState.EXPIRED
            )
    return len(requests)


def _locked(actor: Principal, request_id: int, doing: str) -> tuple[RoleRequest, Authorization]:
    decision = authorize_binding(
        actor=actor,
        action=Action.ROLE_GRANT,
        resource=PEOPLE_AT_LARGE,
        doing=f"{doing} role request {request_id}",
    )
    return role_request_locked(request_id), decision


def _require_second_administrator(
    actor: Principal, request: RoleRequest, decision: Authorization
) -> None:
    """Raise NotPermitted if the actor requested or would get the role, or is not a person."""
    members = DirectoryGroup.objects.filter(name=request.group, members=actor.person_id)
    if actor.person_id is None:
        why = "is not a person"
    elif actor.person_id == request.requested_by_id:
        why = "requested it"
    elif actor.person_id in sign_in_admins_of({request.requested_by_id}):
        why = f"set up the account of {request.requested_by.name}, who requested it,"
    elif actor.person_id == request.person_id:
        why = "would hold the role"
    elif request.group and members.exists():
        why = f"is in the group {request.group}"
    else:
        return
    raise NotPermitted(
        f"Separation of duties: {actor.name} {why} and may not decide on role request "
        f"{request.pk}.",
        code="separation_of_duties",
        hint="Another administrator decides; the requester can withdraw it.",
        attempt=Attempt(
            actor=actor,
            action=Action.ROLE_GRANT,
            subject=role_request_subject(request),
            decision=decision,
        ),
    )


def _require_current(request: RoleRequest) -> None:
    """Raise WrongState if it has expired, or its requester may no longer grant roles."""
    if request.state != RoleRequestState.PENDING:
        return  # The state machine raises a more specific error.
    if request.expires_at <= timezone.now():
        raise WrongState(
            f"Role request {request.pk} has expired; it cannot be approved.",
            hint="Request the role again.",
        )
    requester = principal_for_person(request.requested_by)
    if not decide(
        active_policy(), requester, Action.ROLE_GRANT, PEOPLE_AT_LARGE, base_context()
    ).allowed:
        raise WrongState(
            f"{requester.name}, who requested it, may no longer grant roles; role request "
            f"{request.pk} cannot be approved.",
            hint="Reject it, and request the role again.",
        )


def _give(actor: Principal, request: RoleRequest, decision: Authorization) -> None:
    words = role_words(request.role, None, request.specialty)
    if request.person is None:
        group_mapping_give(
            actor=actor,
            group=request.group,
            role=request.role,
            specialty=request.specialty,
            created_by=request.requested_by_id,
            approved_by=actor.person_id,
            decision=decision,
        )
        return
    person = type(request.person).objects.select_for_update(no_key=True).get(pk=request.person.pk)
    if not person.is_active:
        raise WrongState(f"The account of {person.name} is inactive; it cannot get a role.")
    try:
        with transaction.atomic():
            assignment = RoleAssignment.objects.create(
                person=person,
                role=request.role,
                specialty=request.specialty,
                granted_by=request.requested_by,
                approved_by_id=actor.person_id,
            )
    except IntegrityError as error:
        raise WrongState(f"{person.name} is {words} already.") from error
    end_access_without_second_factor(actor=actor, person=person, role=request.role)
    if person.unconfirmed_at is not None and not sign_in_admins_of({person.pk}):
        # Two administrators vouch for the person, and neither could act as the account.
        person.unconfirmed_at = None
        person.save(update_fields=["unconfirmed_at"])
    record_role(actor, Action.ROLE_GRANT.value, assignment, decision)
