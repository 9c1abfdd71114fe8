"""Roles that need a second administrator's approval, and the states of requests for them.

During setup, Assay has only one administrator. Until two have existed, one administrator grants
these roles alone, and each event records that (`setup`). The audit log shows whether two have
existed, so removing the other administrators does not allow grants by one again.
"""

from __future__ import annotations

from datetime import timedelta

from django.db import IntegrityError, transaction
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.audit.personal import opened_bodies
from governance.audit.services import Subject, audit_record
from governance.errors import WrongState
from governance.people.models import (
    PRIVILEGED_ROLES,
    Person,
    Role,
    RoleAssignment,
    RoleRequest,
    RoleRequestState,
)
from governance.people.proof import proof_facts
from governance.policy.decisions import Authorization
from governance.principals import Principal
from governance.state_machine import StateMachine

LIFETIME = timedelta(days=7)
ALLOWED_TRANSITIONS: dict[RoleRequestState, frozenset[RoleRequestState]] = {
    RoleRequestState.PENDING: frozenset(
        {
            RoleRequestState.APPROVED,
            RoleRequestState.REJECTED,
            RoleRequestState.WITHDRAWN,
            RoleRequestState.EXPIRED,
        }
    ),
    RoleRequestState.APPROVED: frozenset(),
    RoleRequestState.REJECTED: frozenset(),
    RoleRequestState.WITHDRAWN: frozenset(),
    RoleRequestState.EXPIRED: frozenset(),
}
ROLE_REQUEST_STATES = StateMachine(
    model=RoleRequest,
    noun="role request",
    table=ALLOWED_TRANSITIONS,
    hint="request the role again",
    related=("person", "requested_by"),
)
role_request_locked = ROLE_REQUEST_STATES.locked
_ACTIONS = {
    RoleRequestState.APPROVED: "role:approve",
    RoleRequestState.REJECTED: "role:reject",
    RoleRequestState.WITHDRAWN: "role:withdraw",
    RoleRequestState.EXPIRED: "role:expire",
}
_ENOUGH = 2


def second_administrator_needed(role: str) -> bool:
    """Return whether granting the role, to a person or a group, needs a second administrator."""
    return role in PRIVILEGED_ROLES and _two_administrators_have_existed()


def setup_facts(role: str) -> dict[str, bool]:
    """Return the event data for a grant that one administrator made alone."""
    return {"setup": True} if role in PRIVILEGED_ROLES else {}


def _two_administrators_have_existed() -> bool:
    current = RoleAssignment.objects.filter(role=Role.ADMIN).values_list("person_id", flat=True)
    current_ids = {str(pk) for pk in current}
    if len(current_ids) >= _ENOUGH:
        return True
    grants = AuditEvent.objects.filter(
        action="role:grant", outcome="allowed", subject_type="person"
    ).exclude(subject_id__in=current_ids)
    # An erased person's role is unreadable; it may have been administrator.
    former_ids = {
        body["subject_id"]
        for body in opened_bodies(grants)
        if body["data"].get("role", Role.ADMIN) == Role.ADMIN
    }
    return len(current_ids | former_ids) >= _ENOUGH


def role_request_subject(request: RoleRequest) -> Subject:
    """Return the request's person or group as an audit subject."""
    if request.person is None:
        return Subject("group_mapping", "", request.group)
    return Subject("person", str(request.person.pk), request.person.name)


def role_request_open(
    *,
    actor: Principal,
    requested_by: int,
    role: str,
    specialty: str,
    decision: Authorization,
    person: Person | None = None,
    group: str = "",
) -> RoleRequest:
    """Record a request for the role. The caller has authorized the actor.

    Raises:
        WrongState: the same request is already pending.
    """
    with transaction.atomic():
        expired = RoleRequest.objects.select_for_update(of=("self",)).filter(
            person=person, group=group, role=role, specialty=specialty,
            state=RoleRequestState.PENDING, expires_at__lte=timezone.now(),
        )  # fmt: skip
        for old in expired:
            role_request_set_state(actor=actor, request=old, state=RoleRequestState.EXPIRED)
        try:
            with transaction.atomic():
                request = RoleRequest.objects.create(
                    person=person,
                    group=group,
                    role=role,
                    specialty=specialty,
                    requested_by_id=requested_by,
                    expires_at=timezone.now() + LIFETIME,
                )
        except IntegrityError as error:
            raise WrongState(
                "This role is already requested; a second request was not made.",
                hint="Another administrator approves or rejects the request that is pending.",
            ) from error
        _record(actor, "role:request", request, decision=decision)
    return request


def role_request_set_state(
    *,
    actor: Principal,
    request: RoleRequest,
    state: RoleRequestState,
    reason: str = "",
    decision: Authorization | None = None,
) -> None:
    """Change the state of a request from `role_request_locked`, and record it.

    Raises:
        WrongState: the request is no longer pending.
    """
    request.reason = reason
    request.decided_by_id, request.decided_at = actor.person_id, timezone.now()
    ROLE_REQUEST_STATES.save_state(request, state, ["reason", "decided_by", "decided_at"])
    _record(actor, _ACTIONS[state], request, reason=reason, decision=decision)


def _record(
    actor: Principal,
    action: str,
    request: RoleRequest,
    *,
    reason: str = "",
    decision: Authorization | None = None,
) -> None:
    audit_record(
        actor=actor,
        action=action,
        subject=role_request_subject(request),
        reason=reason,
        data={
            "request": request.pk,
            "role": str(request.role),
            "specialty": str(request.specialty),
            "requested_by": request.requested_by_id,
            "expires_at": request.expires_at.isoformat(),
            **(proof_facts(actor.proof) if action != "role:expire" else {}),
        },
        decision=decision,
    )
