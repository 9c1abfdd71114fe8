"""Updates of many people's roles to those of their groups, with a constant number of queries.

`governance.people.groups` decides when; this module computes the changes and records them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from django.db import transaction

from governance.audit.services import AuditEntry, audit_record_many
from governance.bounds import GROUP_MAX
from governance.notify import notify
from governance.people.credentials import end_access_without_second_factor
from governance.people.models import GroupMapping, Person, Role, RoleAssignment
from governance.people.roles import another_admin_remains, role_entry, role_words
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.services import SNAPSHOT_CHANNEL
from governance.principals import Principal

_Key = tuple[str, int | None, str]


@dataclass(frozen=True, slots=True)
class RoleChanges:
    """Changes of people's roles, in words. `kept`: roles that could not be revoked."""

    granted: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


@dataclass(slots=True)
class RoleSync:
    """One update of the roles from `source`. The caller has locked the people."""

    actor: Principal
    source: str
    decision: Authorization
    _entries: list[AuditEntry] = field(default_factory=list)
    _words: dict[str, list[str]] = field(default_factory=dict)

    def run(self, people: Sequence[Person], groups: Mapping[int, Collection[str]]) -> RoleChanges:
        """Update the people's roles to those of their groups. `groups` is keyed by person ID.

        Grants come first, so when one administrator replaces another, there is always one.
        """
        mappings = _mappings_by_group({name for names in groups.values() for name in names})
        current: dict[int, dict[_Key, RoleAssignment]] = {person.pk: {} for person in people}
        rows = RoleAssignment.objects.filter(person__in=people).select_related("department")
        for row in rows:
            current[row.person_id][_key(row)] = row
        new: list[RoleAssignment] = []
        removed: list[RoleAssignment] = []
        for person in people:
            group_names = groups.get(person.pk, ()) if person.is_active else ()
            needed = self._needed(person, current[person.pk], group_names, mappings)
            for key, mapping in needed.items():
                new.extend(self._give(person, current[person.pk].get(key), mapping))
            for key, row in current[person.pk].items():
                if row.source == self.source and key not in needed:
                    row.person = person
                    removed.append(row)
        RoleAssignment.objects.bulk_create(new)
        for row in new:
            end_access_without_second_factor(actor=self.actor, person=row.person, role=row.role)
        self.take_away(removed)
        return self.finish()

    def take_away(self, rows: Sequence[RoleAssignment]) -> None:
        """Revoke roles, whose `person` and `department` are loaded. The role of the last
        administrator is kept, and that is recorded."""
        ids: list[int] = []
        for row in rows:
            if row.role != Role.ADMIN or not row.person.is_active:
                ids.append(row.pk)
            elif another_admin_remains(row.person_id):
                # Delete at once: the check for the next administrator must not count this one.
                RoleAssignment.objects.filter(pk=row.pk).delete()
            else:
                why = (
                    f"{row.person.name} is the last administrator; the role was kept, though they "
                    f"are no longer in the group {row.group}."
                )
                self._note("kept", "role:revoke", row, "denied", why)
                continue
            self._note("revoked", "role:revoke", row)
        RoleAssignment.objects.filter(pk__in=ids).delete()

    def finish(self) -> RoleChanges:
        """Record the changes with the decision that permits them."""
        audit_record_many(self._entries)
        if self._entries:
            transaction.on_commit(lambda: notify(SNAPSHOT_CHANNEL))
        return RoleChanges(**{change: tuple(roles) for change, roles in self._words.items()})

    def _needed(
        self,
        person: Person,
        current: Mapping[_Key, RoleAssignment],
        groups: Collection[str],
        by_group: Mapping[str, list[GroupMapping]],
    ) -> dict[_Key, GroupMapping]:
        """Return a mapping for each role, without those that the person made or approved."""
        mapped: dict[_Key, GroupMapping] = {}
        own: dict[_Key, GroupMapping] = {}
        mappings = [mapping for name in set(groups) for mapping in by_group.get(name, ())]
        for mapping in sorted(mappings, key=lambda each: each.pk):
            mine = person.pk in (mapping.created_by_id, mapping.approved_by_id)
            (own if mine else mapped).setdefault(_key(mapping), mapping)
        for key, mapping in own.items():
            if key not in mapped and key not in current:
                why = (
                    f"Separation of duties: {person.name} made the mapping of {mapping.group} "
                    f"themselves; it does not make them {_role_text(mapping)}."
                )
                row = self._row(person, mapping)
                self._note("", Action.ROLE_GRANT.value, row, "denied", why)
        return mapped

    def _give(
        self, person: Person, current: RoleAssignment | None, mapping: GroupMapping
    ) -> list[RoleAssignment]:
        """Return the role to create, if the person does not hold it."""
        if current is None:
            row = self._row(person, mapping)
            self._note("granted", Action.ROLE_GRANT.value, row)
            return [row]
        if current.source == self.source and current.group != mapping.group:
            RoleAssignment.objects.filter(pk=current.pk).update(group=mapping.group)
        return []

    def _row(self, person: Person, mapping: GroupMapping) -> RoleAssignment:
        return RoleAssignment(
            person=person,
            role=mapping.role,
            department=mapping.department,
            specialty=mapping.specialty,
            source=self.source,
            group=mapping.group,
        )

    def _note(
        self, change: str, action: str, row: RoleAssignment, outcome: str = "allowed", why: str = ""
    ) -> None:
        entry = role_entry(self.actor, action, row, self.decision, outcome=outcome, reason=why)
        self._entries.append(entry)
        if change:
            self._words.setdefault(change, []).append(_role_text(row))


def _mappings_by_group(names: Collection[str]) -> dict[str, list[GroupMapping]]:
    # PostgreSQL cannot store NUL, so no mapping has a name with one.
    valid = [name for name in names if "\x00" not in name and len(name) <= GROUP_MAX]
    by_group: dict[str, list[GroupMapping]] = {}
    if valid:
        rows = GroupMapping.objects.filter(group__in=valid).select_related("department")
        for mapping in rows:
            by_group.setdefault(mapping.group, []).append(mapping)
    return by_group


def _key(row: RoleAssignment | GroupMapping) -> _Key:
    return row.role, row.department_id, row.specialty


def _role_text(row: RoleAssignment | GroupMapping) -> str:
    return role_words(row.role, row.department, row.specialty)
