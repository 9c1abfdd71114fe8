"""Mappings from an identity provider's groups to roles.

A mapping gives the members of a group a role. Roles granted by hand or through another identity
provider's groups never change; a mapping gives no role to the person who made it; and the last
administrator keeps that role.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from django.db import IntegrityError, transaction

from governance.audit.services import Attempt, Subject, audit_record
from governance.bounds import GROUP_MAX
from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from governance.people.models import (
    Department,
    DirectoryGroup,
    GroupMapping,
    Person,
    RoleAssignment,
    RoleRequest,
    RoleSource,
)
from governance.people.privileges import (
    role_request_open,
    second_administrator_needed,
    setup_facts,
)
from governance.people.proof import proof_facts
from governance.people.roles import role_words
from governance.people.selectors import (
    PEOPLE_AT_LARGE,
    group_mappings_visible_to,
    person_resource,
)
from governance.people.syncing import RoleChanges, RoleSync
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.services import authorize, authorize_binding
from governance.principals import Principal

# A token of an identity provider names hundreds of groups at most; more is a misconfiguration.
GROUPS_MAX = 2000


def roles_from_groups(
    *, actor: Principal, person: Person, groups: Collection[str], source: str
) -> RoleChanges:
    """Update the roles that a person has from `source` ("sso" or "scim") to those of `groups`.

    An inactive person gets no role, and loses those from `source`.

    Raises:
        InvalidInput: an unknown source, or more than 2,000 groups.
        NotPermitted: the policy denies it.
    """
    if source not in {RoleSource.SSO, RoleSource.SCIM}:
        raise InvalidInput(f"{source[:40]!r} is not a source of groups; use sso or scim.")
    if len(groups) > GROUPS_MAX:
        raise InvalidInput(
            f"The account has {len(groups)} groups; at most {GROUPS_MAX} are allowed.",
            hint="Let the identity provider send only the groups that are assigned to Assay.",
        )
    with transaction.atomic():
        decision = authorize(
            actor=actor, action=Action.ROLE_GRANT, resource=person_resource(person)
        )
        # Of two sign-ins at once, the second sees the roles that the first created.
        person = Person.objects.select_for_update(no_key=True).get(pk=person.pk)
        sync = RoleSync(actor, source, decision)
        return sync.run([person], {person.pk: groups})


def group_mapping_create(
    *,
    actor: Principal,
    group: str,
    role: str,
    department: Department | None = None,
    specialty: str = "",
) -> GroupMapping | RoleRequest:
    """Map the group with exactly this name to a role. A privileged role is only requested, as in
    `role_grant`.

    Members of a provisioned group get the role at once; others at their next single sign-on.

    Raises:
        InvalidInput: no name, an unknown role, or a department or specialty that does not fit it.
        NotPermitted: the policy denies it, or the actor has no fresh second factor or is a member.
        WrongState: the group already gives that role, or it is already requested.
    """
    with transaction.atomic():
        decision = authorize_binding(
            actor=actor,
            action=Action.ROLE_GRANT,
            resource=PEOPLE_AT_LARGE,
            doing="mapping a group to a role",
        )
        group = group.strip()
        if not group or len(group) > GROUP_MAX or not group.isprintable():
            raise InvalidInput(
                f"A group's name has 1 to {GROUP_MAX} printable characters.",
                fields={"group": ["is empty, too long or not printable"]},
            )
        words = role_words(role, department, specialty)
        mapping = GroupMapping(
            group=group,
            role=role,
            department=department,
            specialty=specialty,
            created_by_id=actor.person_id,
        )
        _refuse_member(actor, mapping, words, decision)
        same = GroupMapping.objects.filter(
            group=group, role=role, department=department, specialty=specialty
        )
        if same.exists():
            raise WrongState(f"The group {group} makes people {words} already.")
        if actor.person_id is not None and second_administrator_needed(role):
            return role_request_open(
                actor=actor,
                requested_by=actor.person_id,
                group=group,
                role=role,
                specialty=specialty,
                decision=decision,
            )
        return _give(actor, mapping, words, decision, setup_facts(role))


def group_mapping_give(
    *,
    actor: Principal,
    group: str,
    role: str,
    specialty: str,
    created_by: int,
    approved_by: int | None,
    decision: Authorization,
) -> GroupMapping:
    """Create a mapping that a second administrator approved. The caller has authorized the actor.

    Raises:
        WrongState: the group already gives that role.
    """
    mapping = GroupMapping(
        group=group,
        role=role,
        specialty=specialty,
        created_by_id=created_by,
        approved_by_id=approved_by,
    )
    return _give(actor, mapping, role_words(role, None, specialty), decision, {})


def _give(
    actor: Principal,
    mapping: GroupMapping,
    words: str,
    decision: Authorization,
    more: Mapping[str, bool],
) -> GroupMapping:
    try:
        with transaction.atomic():
            mapping.save(force_insert=True)
    except IntegrityError as error:
        raise WrongState(f"The group {mapping.group} makes people {words} already.") from error
    _record_mapping(actor, "group_mapping:create", mapping, decision, more)
    members_sync(actor=actor, people=Person.objects.filter(directory_groups__name=mapping.group))
    return mapping


def _refuse_member(
    actor: Principal, mapping: GroupMapping, words: str, decision: Authorization
) -> None:
    members = DirectoryGroup.objects.filter(name=mapping.group, members=actor.person_id)
    if actor.person_id is None or not members.exists():
        return
    raise NotPermitted(
        f"Separation of duties: {actor.name} is in the group {mapping.group} and may not make it "
        f"mean {words}.",
        hint="Another administrator can.",
        attempt=Attempt(
            actor=actor,
            action="group_mapping:create",
            subject=Subject("group_mapping", "", mapping.group),
            department=mapping.department.slug if mapping.department else "",
            decision=decision,
        ),
    )


def group_mapping_delete(*, actor: Principal, mapping_id: int) -> None:
    """Delete a group's mapping. People who have the role through it alone lose it at once.

    Raises:
        NotFound, NotPermitted: the mapping does not exist, the policy denies it, or the actor has
            no fresh second factor.
    """
    with transaction.atomic():
        rows = group_mappings_visible_to(actor).select_for_update(of=("self",))
        mapping = rows.filter(pk=mapping_id).first()
        if mapping is None:
            raise NotFound(f"There is no group mapping {mapping_id}.")
        decision = authorize_binding(
            actor=actor,
            action=Action.ROLE_GRANT,
            resource=PEOPLE_AT_LARGE,
            doing="deleting a group mapping",
        )
        _record_mapping(actor, "group_mapping:delete", mapping, decision)
        mapping.delete()
        members_sync(
            actor=actor, people=Person.objects.filter(directory_groups__name=mapping.group)
        )
        # Assay learns the other groups of these people only at their next single sign-on.
        orphans = RoleAssignment.objects.filter(
            source=RoleSource.SSO,
            group=mapping.group,
            role=mapping.role,
            department=mapping.department,
            specialty=mapping.specialty,
        )
        sync = RoleSync(actor, RoleSource.SSO, decision)
        assignments = orphans.select_related("person", "department").order_by("person_id")
        sync.take_away(list(assignments))
        sync.finish()


def _record_mapping(
    actor: Principal,
    action: str,
    mapping: GroupMapping,
    decision: Authorization,
    more: Mapping[str, bool] = MappingProxyType({}),
) -> None:
    audit_record(
        actor=actor,
        action=action,
        subject=Subject("group_mapping", str(mapping.pk), mapping.group),
        department=mapping.department.slug if mapping.department else "",
        data={
            "role": mapping.role,
            "specialty": mapping.specialty,
            **proof_facts(actor.proof),
            **more,
        },
        decision=decision,
    )


def members_sync(*, actor: Principal, people: Iterable[Person]) -> RoleChanges:
    """Update the people's provisioned roles to those of their groups.

    Raises:
        NotPermitted: the policy denies it.
    """
    person_ids = {person.pk for person in people}
    with transaction.atomic():
        decision = authorize(actor=actor, action=Action.ROLE_GRANT, resource=PEOPLE_AT_LARGE)
        # Lock everyone first, in one order: of two overlapping calls, one waits without a deadlock.
        locked = list(
            Person.objects.select_for_update(no_key=True).filter(pk__in=person_ids).order_by("pk")
        )
        groups: dict[int, list[str]] = {}
        memberships = DirectoryGroup.members.through.objects.filter(person_id__in=person_ids)
        for person_id, name in memberships.values_list("person_id", "directorygroup__name"):
            groups.setdefault(person_id, []).append(name)
        sync = RoleSync(actor, RoleSource.SCIM, decision)
        return sync.run(locked, groups)
