"""An identity provider's groups and their members. Mappings decide which roles they give."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from django.db import IntegrityError, transaction

from governance.audit.services import Subject, audit_record
from governance.bounds import GROUP_MAX
from governance.errors import InvalidInput, NotFound, WrongState
from governance.people.groups import members_sync
from governance.people.models import EXTERNAL_ID_MAX, DirectoryGroup, GroupMapping, Person
from governance.people.provisioning import UNIQUENESS
from governance.people.selectors import PEOPLE_AT_LARGE, directory_groups_visible_to
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.services import authorize
from governance.principals import Principal

MEMBERS_MAX = 10_000
# Most IDs that an audit event lists; it gives the total number, too.
LISTED_MAX = 1000


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """A group as an identity provider describes it. `members` are people's IDs."""

    name: str
    external_id: str = ""
    members: frozenset[int] = frozenset()


def directory_group_get(*, actor: Principal, group_id: int, hold: bool = False) -> DirectoryGroup:
    """Return the group. `hold` locks it until the transaction ends, for a caller that computes its
    new state from the current one.

    Raises:
        NotFound: it does not exist, or the actor may not see groups.
    """
    if hold:
        list(DirectoryGroup.objects.select_for_update().filter(pk=group_id))
    group = directory_groups_visible_to(actor).filter(pk=group_id).first()
    if group is None:
        raise NotFound(f"There is no group {group_id}.")
    return group


def directory_group_create(*, actor: Principal, record: GroupRecord) -> DirectoryGroup:
    """Create a group with its members, who get the roles that its mappings give.

    Raises:
        InvalidInput: a name or external id that is empty, too long or not printable, or a member
            that does not exist.
        NotPermitted: the policy denies it.
        WrongState: another group has this name or external id (code `uniqueness`).
    """
    with transaction.atomic():
        decision = authorize(actor=actor, action=Action.PERSON_UPDATE, resource=PEOPLE_AT_LARGE)
        record = _checked(record)
        group = DirectoryGroup(name=record.name, external_id=record.external_id)
        _save(group)
        _record(actor, "group:create", group, decision)
        joined = _set_members(actor, group, record.members, decision)
        _sync(actor, {group.name}, joined)
    return group


def directory_group_change(
    *, actor: Principal, group_id: int, record: GroupRecord
) -> DirectoryGroup:
    """Update the group to the provider's record. Its members' roles change at once.

    Raises:
        InvalidInput, NotPermitted, WrongState: as `directory_group_create`.
        NotFound: the group does not exist.
    """
    with transaction.atomic():
        decision = authorize(actor=actor, action=Action.PERSON_UPDATE, resource=PEOPLE_AT_LARGE)
        group = _locked(group_id)
        record = _checked(record)
        names = {group.name, record.name}
        if len(names) > 1 or group.external_id != record.external_id:
            before = {"name": group.name, "external_id": group.external_id}
            group.name, group.external_id = record.name, record.external_id
            _save(group)
            _record(
                actor,
                "group:update",
                group,
                decision,
                {"before": before, "external_id": group.external_id},
            )
        people = _set_members(actor, group, record.members, decision)
        if len(names) > 1:
            # Mappings go by the group's name, so every member's roles may change.
            people |= record.members
        _sync(actor, names, people)
    return group


def directory_group_delete(*, actor: Principal, group_id: int) -> None:
    """Delete the group; members who had a role through it alone lose the role at once.

    Raises:
        NotFound, NotPermitted: the group does not exist, or the policy denies it.
    """
    with transaction.atomic():
        decision = authorize(actor=actor, action=Action.PERSON_UPDATE, resource=PEOPLE_AT_LARGE)
        group = _locked(group_id)
        members = set(group.members.values_list("pk", flat=True))
        _record(
            actor,
            "group:delete",
            group,
            decision,
            {"members": len(members)},
        )
        group.delete()
        _sync(actor, {group.name}, members)


def _locked(group_id: int) -> DirectoryGroup:
    group = DirectoryGroup.objects.select_for_update().filter(pk=group_id).first()
    if group is None:
        raise NotFound(f"There is no group {group_id}.")
    return group


def _checked(record: GroupRecord) -> GroupRecord:
    name, external_id = record.name.strip(), record.external_id
    faults = {
        "name": not name or len(name) > GROUP_MAX or not name.isprintable(),
        "external_id": len(external_id) > EXTERNAL_ID_MAX or not external_id.isprintable(),
    }
    if fields := [field for field, is_wrong in faults.items() if is_wrong]:
        raise InvalidInput(
            f"A group's {fields[0].replace('_', ' ')} is empty, too long or not printable.",
            fields={field: ["is empty, too long or not printable"] for field in fields},
        )
    if len(record.members) > MEMBERS_MAX:
        raise InvalidInput(
            f"Group {name} would have {len(record.members):,} members; {MEMBERS_MAX:,} are "
            "allowed.",
            fields={"members": ["are too many"]},
        )
    return GroupRecord(name=name, external_id=external_id, members=record.members)


def _save(group: DirectoryGroup) -> None:
    try:
        with transaction.atomic():
            group.save()
    except IntegrityError as error:
        raise WrongState(
            f"Another group has the name {group.name} or its external ID; this group was not "
            "saved.",
            code=UNIQUENESS,
        ) from error


def _set_members(
    actor: Principal, group: DirectoryGroup, members: Collection[int], decision: Authorization
) -> set[int]:
    """Add and remove members; returns the IDs of people who joined or left."""
    before = set(group.members.values_list("pk", flat=True))
    joined, left = set(members) - before, before - set(members)
    existing = set(
        Person.objects.filter(pk__in=joined, deprovisioned_at=None).values_list("pk", flat=True)
    )
    if missing := sorted(joined - existing):
        raise InvalidInput(
            f"There is no person {missing[0]}; the group's members were not changed.",
            fields={"members": [f"{len(missing)} of them do not exist"]},
        )
    if joined or left:
        group.members.add(*joined)
        group.members.remove(*left)
        group.save(update_fields=["changed_at"])
        data = {
            "joined": sorted(joined)[:LISTED_MAX],
            "left": sorted(left)[:LISTED_MAX],
            "joined_n": len(joined),
            "left_n": len(left),
        }
        _record(actor, "group:members", group, decision, data)
    return joined | left


def _sync(actor: Principal, names: Collection[str], people: Collection[int]) -> None:
    """Update the people's roles if any of these groups has a mapping."""
    if people and GroupMapping.objects.filter(group__in=names).exists():
        members_sync(actor=actor, people=Person.objects.filter(pk__in=people))


def _record(
    actor: Principal,
    action: str,
    group: DirectoryGroup,
    decision: Authorization,
    data: Mapping[str, object] | None = None,
) -> None:
    audit_record(
        actor=actor,
        action=action,
        subject=Subject("group", str(group.pk), group.name),
        data=dict(data or {}),
        decision=decision,
    )
