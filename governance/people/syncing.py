"""Bringing the roles of many people at once in line with their groups, in a handful of queries.

`governance.people.groups` says when; this says what changes, and records it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from django.db import transaction

from governance.audit.services import AuditEntry, audit_record_many
from governance.bounds import GROUP_MAX
from governance.notify import notify
from governance.people.credentials import second_factor_begins
from governance.people.models import GroupMapping, Person, Role, RoleAssignment
from governance.people.roles import another_admin_remains, role_entry, role_words
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.services import SNAPSHOT_CHANNEL
from governance.principals import Principal

_Key = tuple[str, int | None, str]


@dataclass(frozen=True, slots=True)
class RoleChanges:
    """Changes of people's roles, each in words; `kept` could not be removed."""

    granted: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


@dataclass(slots=True)
class RoleSync:
    """One reconciliation of the roles that `source` keeps. The people are locked by the caller."""

    actor: Principal
    source: str
    decision: Authorization
    _entries: list[AuditEntry] = field(default_factory=list)
    _words: dict[str, list[str]] = field(default_factory=dict)

    def run(self, people: Sequence[Person], groups: Mapping[int, Collection[str]]) -> RoleChanges:
        """Give each of `people` what their groups (by the person's id) mean, and no more.

        Grants come first: of two who change places, neither is then the last administrator.
        """
        meaning = _meaning({name for names in groups.values() for name in names})
        held: dict[int, dict[_Key, RoleAssignment]] = {person.pk: {} for person in people}
        rows = RoleAssignment.objects.filter(person__in=people).select_related("department")
        for row in rows:
            held[row.person_id][_key(row)] = row
        made: list[RoleAssignment] = []
        gone: list[RoleAssignment] = []
        for person in people:
            named = groups.get(person.pk, ()) if person.is_active else ()
            wanted = self._wanted(person, held[person.pk], named, meaning)
            for key, mapping in wanted.items():
                made.extend(self._give(person, held[person.pk].get(key), mapping))
            for key, row in held[person.pk].items():
                if row.source == self.source and key not in wanted:
                    row.person = person
                    gone.append(row)
        RoleAssignment.objects.bulk_create(made)
        for row in made:
            second_factor_begins(actor=self.actor, person=row.person, role=row.role)
        self.take_away(gone)
        return self.finish()

    def take_away(self, rows: Sequence[RoleAssignment]) -> None:
        """Take roles away, with their `person` and `department` loaded; the last administrator's
        is kept, and that is recorded."""
        gone: list[int] = []
        for row in rows:
            if row.role != Role.ADMIN or not row.person.is_active:
                gone.append(row.pk)
            elif another_admin_remains(row.person_id):
                # At once, so that the next one who asks is not counted on.
                RoleAssignment.objects.filter(pk=row.pk).delete()
            else:
                why = (
                    f"{row.person.name} is the last administrator; the role was kept, though they "
                    f"are no longer in the group {row.group}."
                )
                self._note("kept", "role:revoke", row, "denied", why)
                continue
            self._note("revoked", "role:revoke", row)
        RoleAssignment.objects.filter(pk__in=gone).delete()

    def finish(self) -> RoleChanges:
        """Record the changes with the decision that permits them."""
        audit_record_many(self._entries)
        if self._entries:
            transaction.on_commit(lambda: notify(SNAPSHOT_CHANNEL))
        return RoleChanges(**{name: tuple(said) for name, said in self._words.items()})

    def _wanted(
        self,
        person: Person,
        held: Mapping[_Key, RoleAssignment],
        groups: Collection[str],
        meaning: Mapping[str, list[GroupMapping]],
    ) -> dict[_Key, GroupMapping]:
        """The mappings of the groups, one for each role; none that the person made or approved."""
        found: dict[_Key, GroupMapping] = {}
        own: dict[_Key, GroupMapping] = {}
        mappings = [mapping for name in set(groups) for mapping in meaning.get(name, ())]
        for mapping in sorted(mappings, key=lambda each: each.pk):
            mine = person.pk in (mapping.created_by_id, mapping.approved_by_id)
            (own if mine else found).setdefault(_key(mapping), mapping)
        for key, mapping in own.items():
            if key not in found and key not in held:
                why = (
                    f"Separation of duties: {person.name} made the mapping of {mapping.group} "
                    f"themselves; it does not make them {_said(mapping)}."
                )
                row = self._row(person, mapping)
                self._note("", Action.ROLE_GRANT.value, row, "denied", why)
        return found

    def _give(
        self, person: Person, held: RoleAssignment | None, mapping: GroupMapping
    ) -> list[RoleAssignment]:
        """The role to be made, if they do not hold it."""
        if held is None:
            row = self._row(person, mapping)
            self._note("granted", Action.ROLE_GRANT.value, row)
            return [row]
        if held.source == self.source and held.group != mapping.group:
            RoleAssignment.objects.filter(pk=held.pk).update(group=mapping.group)
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
        self, what: str, action: str, row: RoleAssignment, outcome: str = "allowed", why: str = ""
    ) -> None:
        entry = role_entry(self.actor, action, row, self.decision, outcome=outcome, reason=why)
        self._entries.append(entry)
        if what:
            self._words.setdefault(what, []).append(_said(row))


def _meaning(names: Collection[str]) -> dict[str, list[GroupMapping]]:
    # PostgreSQL holds no NUL; a name with one is no group of ours.
    sane = [name for name in names if "\x00" not in name and len(name) <= GROUP_MAX]
    found: dict[str, list[GroupMapping]] = {}
    if sane:
        rows = GroupMapping.objects.filter(group__in=sane).select_related("department")
        for mapping in rows:
            found.setdefault(mapping.group, []).append(mapping)
    return found


def _key(row: RoleAssignment | GroupMapping) -> _Key:
    return row.role, row.department_id, row.specialty


def _said(row: RoleAssignment | GroupMapping) -> str:
    return role_words(row.role, row.department, row.specialty)
