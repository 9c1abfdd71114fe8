"""Grants and revocations of roles by hand."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from django.db import IntegrityError, transaction

from governance.audit.services import Attempt, AuditEntry, Subject, audit_record
from governance.database.locks import lock
from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from governance.notify import notify
from governance.people.credentials import end_access_without_second_factor
from governance.people.models import (
    DEPARTMENT_ROLES,
    PLATFORM_ROLES,
    Department,
    Person,
    Role,
    RoleAssignment,
    RoleRequest,
    RoleSource,
    Specialty,
)
from governance.people.privileges import (
    role_request_open,
    second_administrator_needed,
    setup_facts,
)
from governance.people.proof import proof_facts
from governance.people.selectors import person_resource
from governance.permissions import Action
from governance.policy.context import base_context
from governance.policy.decisions import Authorization
from governance.policy.engine import Resource, decide
from governance.policy.services import SNAPSHOT_CHANNEL, active_policy, authorize_binding
from governance.principals import Principal


def person_subject(person: Person) -> Subject:
    """Return a person as an audit subject."""
    return Subject("person", str(person.pk), person.name)


def role_grant(
    *,
    actor: Principal,
    person: Person,
    role: str,
    department: Department | None = None,
    specialty: str = "",
) -> RoleAssignment | RoleRequest:
    """Give a person a role: platform-wide, or in one department. A privileged role is only
    requested, unless Assay is being set up: a second administrator approves it.

    Raises:
        InvalidInput: an unknown role, or a department or specialty that does not fit it.
        NotPermitted: the policy denies it, the actor has no fresh second factor, or it is the
            actor's own account.
        WrongState: the person holds the role, it is already requested, or the account is inactive.
    """
    with transaction.atomic():
        decision = authorize_binding(
            actor=actor,
            action=Action.ROLE_GRANT,
            resource=person_resource(person),
            doing=f"granting a role to {person.name}",
        )
        words = role_words(role, department, specialty)
        _require_authority(actor, person, words, department, decision)
        if actor.person_id == person.pk:
            raise NotPermitted(
                f"Separation of duties: {person.name} may not grant themselves {words}.",
                hint="Another administrator can.",
                attempt=_attempt(actor, person, department, decision),
            )
        # Read again under a lock: group mappings may change the roles at the same time.
        person = Person.objects.select_for_update(no_key=True).get(pk=person.pk)
        if not person.is_active:
            raise WrongState(f"The account of {person.name} is inactive; it cannot get a role.")
        current = RoleAssignment.objects.filter(
            person=person, role=role, department=department, specialty=specialty
        )
        if current.exists():
            raise WrongState(f"{person.name} is {words} already.")
        if actor.person_id is not None and second_administrator_needed(role):
            return role_request_open(
                actor=actor,
                requested_by=actor.person_id,
                person=person,
                role=role,
                specialty=specialty,
                decision=decision,
            )
        try:
            with transaction.atomic():
                assignment = RoleAssignment.objects.create(
                    person=person,
                    role=role,
                    department=department,
                    specialty=specialty,
                    granted_by_id=actor.person_id,
                )
        except IntegrityError as error:
            raise WrongState(f"{person.name} is {words} already.") from error
        end_access_without_second_factor(actor=actor, person=person, role=role)
        record_role(
            actor,
            Action.ROLE_GRANT.value,
            assignment,
            decision,
            more=setup_facts(role),
        )
    return assignment


def _require_authority(
    actor: Principal,
    person: Person,
    words: str,
    department: Department | None,
    decision: Authorization,
) -> None:
    """Raise NotPermitted unless the actor may grant roles in the department or, without one, on
    the whole platform. Thus a manager of an administrator's department may change the
    administrator's roles there, but not the platform-wide ones."""
    departments = frozenset({department.slug} if department else ())
    resource = Resource("person", attributes={"departments": departments, "owner": None})
    if not decide(active_policy(), actor, Action.ROLE_GRANT, resource, base_context()).allowed:
        raise NotPermitted(
            f"{actor.name} may not grant or revoke the role {words}.",
            hint="A person who manages the roles of that department or of the platform can.",
            attempt=_attempt(actor, person, department, decision),
        )


def _attempt(
    actor: Principal, person: Person, department: Department | None, decision: Authorization
) -> Attempt:
    return Attempt(
        actor=actor,
        action=Action.ROLE_GRANT,
        subject=person_subject(person),
        department=department.slug if department else "",
        decision=decision,
    )


def role_words(role: str, department: Department | None, specialty: str) -> str:
    """Return the role in words, such as "privacy reviewer" or "lead in clinical".

    Raises:
        InvalidInput: the parts do not fit together.
    """
    if role not in Role.values:
        raise InvalidInput(
            f"There is no role {role[:40]}.",
            fields={"role": [f"is one of {', '.join(Role.values)}"]},
        )
    if role in DEPARTMENT_ROLES and department is None:
        raise InvalidInput(
            f"The role {role} needs a department; none was named.",
            fields={"department": ["is needed for this role"]},
        )
    if role in PLATFORM_ROLES and department is not None:
        raise InvalidInput(
            f"The role {role} is platform-wide; it cannot be held in {department.slug}.",
            fields={"department": ["must be left out for this role"]},
        )
    if (role == Role.REVIEWER) is (specialty not in Specialty.values):
        raise InvalidInput(
            f"A reviewer has one of the specialties {', '.join(Specialty.values)}; "
            "other roles have none.",
            fields={"specialty": ["does not fit the role"]},
        )
    if role != Role.REVIEWER and specialty:
        raise InvalidInput(
            f"The role {role} has no specialty.",
            fields={"specialty": ["must be left out for this role"]},
        )
    return f"{specialty} {role}".strip() + (f" in {department.slug}" if department else "")


def role_revoke(*, actor: Principal, assignment_id: int) -> None:
    """Revoke a role, at once.

    Raises:
        NotFound, NotPermitted: the assignment does not exist, the policy denies it, or the actor
            has no fresh second factor.
        WrongState: it is the last administrator's role, or comes from a group.
    """
    with transaction.atomic():
        assignment = (
            RoleAssignment.objects.select_related("person", "department")
            .filter(pk=assignment_id)
            .first()
        )
        if assignment is None:
            raise NotFound(f"There is no role assignment {assignment_id}.")
        decision = authorize_binding(
            actor=actor,
            action=Action.ROLE_GRANT,
            resource=person_resource(assignment.person),
            doing=f"revoking a role of {assignment.person.name}",
        )
        words = role_words(assignment.role, assignment.department, assignment.specialty)
        _require_authority(actor, assignment.person, words, assignment.department, decision)
        if assignment.source != RoleSource.MANUAL:
            raise WrongState(
                f"{assignment.person.name} is {assignment.role} through the group "
                f"{assignment.group}; the role cannot be taken away by hand.",
                hint="Take them out of the group, remove the group's mapping, or deactivate the "
                "account.",
            )
        if assignment.role == Role.ADMIN and not another_admin_remains(assignment.person_id):
            raise WrongState(
                f"{assignment.person.name} is the last administrator; the role cannot be taken "
                "away.",
                hint="Make another administrator first.",
            )
        record_role(actor, "role:revoke", assignment, decision)
        assignment.delete()


def role_entry(
    actor: Principal,
    action: str,
    assignment: RoleAssignment,
    decision: Authorization,
    *,
    outcome: str = "allowed",
    reason: str = "",
) -> AuditEntry:
    """Return the audit entry for a change of a role."""
    data = {"role": str(assignment.role), "specialty": str(assignment.specialty)}
    data |= proof_facts(actor.proof)
    if assignment.approved_by_id is not None and action == Action.ROLE_GRANT.value:
        data |= {"requested_by": str(assignment.granted_by_id)}
    if assignment.source != RoleSource.MANUAL:
        data |= {"source": str(assignment.source), "group": assignment.group}
    return AuditEntry(
        actor=actor,
        action=action,
        subject=person_subject(assignment.person),
        outcome=outcome,
        reason=reason,
        department=assignment.department.slug if assignment.department else "",
        data=data,
        decision=decision,
    )


def record_role(
    actor: Principal,
    action: str,
    assignment: RoleAssignment,
    decision: Authorization,
    *,
    more: Mapping[str, bool] = MappingProxyType({}),
) -> None:
    """Audit a change of a role, and notify the gateways."""
    entry = role_entry(actor, action, assignment, decision)
    audit_record(
        actor=actor,
        action=action,
        subject=entry.subject,
        department=entry.department,
        data={**entry.data, **more},
        decision=decision,
    )
    # Roles decide what a person's access tokens may do, so gateways must reload them.
    transaction.on_commit(lambda: notify(SNAPSHOT_CHANNEL))


def another_admin_remains(person_id: int) -> bool:
    """Return whether another person is an active administrator. Other callers wait until the
    transaction ends, so two administrators cannot both leave at once.
    """
    # Lock first, then query: with a row lock, the query would see the rows from before the wait.
    lock("administrators")
    admins = RoleAssignment.objects.filter(role=Role.ADMIN, person__is_active=True)
    return admins.exclude(person_id=person_id).exists()
