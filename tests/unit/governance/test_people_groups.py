"""Effects of membership in an identity provider's groups, and their limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from governance.audit.models import AuditEvent
from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from governance.people.groups import (
    group_mapping_create,
    group_mapping_delete,
    members_sync,
    roles_from_groups,
)
from governance.people.models import (
    Department,
    DirectoryGroup,
    GroupMapping,
    Person,
    RoleAssignment,
)
from governance.people.roles import role_grant, role_revoke
from governance.people.services import person_deactivate, person_reactivate
from governance.people.syncing import RoleChanges
from governance.principals import Principal, service_principal
from tests.unit.audit_support import recorded

SSO, SCIM = service_principal("sso"), service_principal("scim")


@pytest.fixture
def admin(actor: Callable[..., Principal]) -> Principal:
    return actor("Ada", "admin")


@pytest.fixture
def mapped(admin: Principal, department: Callable[[str], Department]) -> None:
    """clinical-leads lead clinical; assay-risk reviews model risk; root is admin."""
    clinical = department("clinical")
    group_mapping_create(actor=admin, group="clinical-leads", role="lead", department=clinical)
    group_mapping_create(actor=admin, group="assay-risk", role="reviewer", specialty="model-risk")
    group_mapping_create(actor=admin, group="root", role="admin")


def held(person: Person) -> set[tuple[str, str, str]]:
    return {(r.role, r.source, r.group) for r in person.role_assignments.all()}


@pytest.mark.usefixtures("mapped")
def test_roles_follow_the_groups_in_both_directions(person: Callable[..., Person]) -> None:
    lena = person("Lena")
    changes = roles_from_groups(
        actor=SSO, person=lena, groups=["clinical-leads", "assay-risk", "unknown"], source="sso"
    )
    assert set(changes.granted) == {"lead in clinical", "model-risk reviewer"}
    assert held(lena) == {("lead", "sso", "clinical-leads"), ("reviewer", "sso", "assay-risk")}

    changes = roles_from_groups(actor=SSO, person=lena, groups=["assay-risk"], source="sso")
    assert changes == RoleChanges(revoked=("lead in clinical",))
    assert held(lena) == {("reviewer", "sso", "assay-risk")}
    grants = AuditEvent.objects.filter(action="role:grant", actor_id="sso", actor_kind="service")
    assert grants.count() == 2
    assert AuditEvent.objects.filter(action="role:revoke", actor_id="sso").count() == 1


@pytest.mark.usefixtures("mapped")
def test_the_same_groups_again_change_nothing(person: Callable[..., Person]) -> None:
    lena = person("Lena")
    roles_from_groups(actor=SSO, person=lena, groups=["clinical-leads"], source="sso")
    before = AuditEvent.objects.count()
    changes = roles_from_groups(actor=SSO, person=lena, groups=["clinical-leads"], source="sso")
    assert changes == RoleChanges()
    assert AuditEvent.objects.count() == before


@pytest.mark.usefixtures("mapped")
def test_manual_roles_and_those_of_another_source_are_not_touched(
    admin: Principal, person: Callable[..., Person], department: Callable[[str], Department]
) -> None:
    lena = person("Lena", "lead@clinical")
    roles_from_groups(actor=SCIM, person=lena, groups=["assay-risk"], source="scim")
    roles_from_groups(actor=SSO, person=lena, groups=[], source="sso")
    roles_from_groups(
        actor=SCIM, person=lena, groups=["assay-risk", "clinical-leads"], source="scim"
    )
    roles_from_groups(actor=SCIM, person=lena, groups=["assay-risk"], source="scim")
    assert held(lena) == {("lead", "manual", ""), ("reviewer", "scim", "assay-risk")}


@pytest.mark.usefixtures("mapped")
def test_a_role_from_a_group_is_not_taken_away_by_hand(
    admin: Principal, person: Callable[..., Person]
) -> None:
    lena = person("Lena")
    roles_from_groups(actor=SCIM, person=lena, groups=["clinical-leads"], source="scim")
    assignment = lena.role_assignments.get()
    with pytest.raises(WrongState, match="through the group clinical-leads"):
        role_revoke(actor=admin, assignment_id=assignment.pk)
    with pytest.raises(WrongState, match="already"):
        role_grant(actor=admin, person=lena, role="lead", department=assignment.department)


@pytest.mark.usefixtures("mapped")
def test_the_last_administrator_stays_one_whatever_the_groups_say(
    person: Callable[..., Person],
) -> None:
    rosa = person("Rosa")
    roles_from_groups(actor=SSO, person=rosa, groups=["root"], source="sso")
    RoleAssignment.objects.exclude(person=rosa).delete()

    changes = roles_from_groups(actor=SSO, person=rosa, groups=[], source="sso")

    assert changes == RoleChanges(kept=("admin",))
    assert held(rosa) == {("admin", "sso", "root")}
    kept = recorded(action="role:revoke", outcome="denied")
    assert "last administrator" in kept.reason


@pytest.mark.usefixtures("mapped")
def test_nobody_gets_a_role_through_a_mapping_of_their_own_making(admin: Principal) -> None:
    ada = Person.objects.get(pk=admin.person_id)
    changes = roles_from_groups(actor=SSO, person=ada, groups=["assay-risk"], source="sso")
    assert changes == RoleChanges()
    assert held(ada) == {("admin", "manual", "")}
    refused = recorded(action="role:grant", outcome="denied")
    assert "Separation of duties" in refused.reason


def test_nobody_maps_a_group_that_they_are_in(admin: Principal) -> None:
    group = DirectoryGroup.objects.create(name="assay-risk")
    assert admin.person_id is not None
    group.members.add(admin.person_id)
    with pytest.raises(NotPermitted, match="is in the group assay-risk"):
        group_mapping_create(actor=admin, group="assay-risk", role="reviewer", specialty="privacy")
    assert not GroupMapping.objects.exists()


@pytest.mark.usefixtures("mapped")
def test_an_inactive_person_gets_nothing_and_their_groups_wait_for_them(
    admin: Principal, person: Callable[..., Person]
) -> None:
    lena = person("Lena")
    DirectoryGroup.objects.create(name="clinical-leads").members.add(lena)
    person_deactivate(actor=SCIM, person_id=lena.pk, reason="Suspended.")
    assert (
        roles_from_groups(actor=SCIM, person=lena, groups=["clinical-leads"], source="scim")
        == RoleChanges()
    )
    person_reactivate(actor=SCIM, person_id=lena.pk)
    assert held(lena) == {("lead", "scim", "clinical-leads")}


def test_a_mapping_takes_effect_on_a_provisioned_group_at_once_and_so_does_its_end(
    admin: Principal, person: Callable[..., Person], department: Callable[[str], Department]
) -> None:
    lena, through_sso = person("Lena"), person("Sven")
    DirectoryGroup.objects.create(name="clinical-leads").members.add(lena)
    clinical = department("clinical")
    mapping = group_mapping_create(
        actor=admin, group="clinical-leads", role="lead", department=clinical
    )
    assert held(lena) == {("lead", "scim", "clinical-leads")}
    roles_from_groups(actor=SSO, person=through_sso, groups=["clinical-leads"], source="sso")

    group_mapping_delete(actor=admin, mapping_id=mapping.pk)

    assert held(lena) == set()
    assert held(through_sso) == set()
    actions = AuditEvent.objects.filter(subject_type="group_mapping").values_list(
        "action", flat=True
    )
    assert set(actions) == {"group_mapping:create", "group_mapping:delete"}
    with pytest.raises(NotFound):
        group_mapping_delete(actor=admin, mapping_id=mapping.pk)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"group": ""}, "group"),
        ({"group": "x" * 256}, "group"),
        ({"group": "a\x00"}, "group"),
        ({"role": "root"}, "role"),
        ({"role": "lead"}, "department"),
        ({"role": "reviewer"}, "specialty"),
    ],
)
def test_a_mapping_that_makes_no_sense_is_refused(
    admin: Principal, changes: dict[str, str], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        group_mapping_create(actor=admin, **({"group": "g", "role": "admin"} | changes))
    assert list(caught.value.fields) == [field]


@pytest.mark.usefixtures("mapped")
def test_a_group_is_mapped_to_a_role_once_and_only_by_who_grants_roles(
    admin: Principal, actor: Callable[..., Principal]
) -> None:
    with pytest.raises(WrongState, match="already"):
        group_mapping_create(actor=admin, group="root", role="admin")
    for name, role in (("Asha", "auditor"), ("Omar", "operator"), ("Lena", "lead@clinical")):
        with pytest.raises((NotPermitted, NotFound)):
            group_mapping_create(actor=actor(name, role), group="mine", role="admin")


@pytest.mark.usefixtures("mapped")
def test_only_the_identity_provider_and_administrators_apply_groups(
    actor: Callable[..., Principal], person: Callable[..., Person]
) -> None:
    lena = person("Lena")
    for stranger in (service_principal("controller"), actor("Omar", "operator")):
        with pytest.raises((NotPermitted, NotFound)):
            roles_from_groups(actor=stranger, person=lena, groups=["root"], source="sso")
    assert held(lena) == set()


def test_nonsense_from_outside_is_bounded(admin: Principal, person: Callable[..., Person]) -> None:
    lena = person("Lena")
    with pytest.raises(InvalidInput, match="2001 groups"):
        roles_from_groups(
            actor=SSO, person=lena, groups=[str(n) for n in range(2001)], source="sso"
        )
    with pytest.raises(InvalidInput, match="not a source"):
        roles_from_groups(actor=SSO, person=lena, groups=[], source="manual")
    odd = ["a\x00b", "x" * 5000, ""]
    assert roles_from_groups(actor=SSO, person=lena, groups=odd, source="sso") == RoleChanges()


def test_the_database_holds_that_a_role_says_where_it_is_from(
    person: Callable[..., Person],
) -> None:
    lena = person("Lena")
    for source, group in (("manual", "g"), ("sso", "")):
        with pytest.raises(IntegrityError), transaction.atomic():
            RoleAssignment.objects.create(person=lena, role="admin", source=source, group=group)


@pytest.mark.usefixtures("mapped")
def test_of_two_who_change_places_the_first_need_not_be_the_last_administrator(
    person: Callable[..., Person],
) -> None:
    old, new = person("Old"), person("New")
    root = DirectoryGroup.objects.create(name="root")
    root.members.add(old)
    members_sync(actor=SCIM, people=[old])
    RoleAssignment.objects.exclude(person=old).delete()
    root.members.set([new])
    assert members_sync(actor=SCIM, people=[old, new]) == RoleChanges(
        granted=("admin",), revoked=("admin",)
    )
    assert (held(old), held(new)) == (set(), {("admin", "scim", "root")})


@pytest.mark.usefixtures("mapped")
def test_of_all_administrators_who_leave_at_once_one_is_kept(
    person: Callable[..., Person],
) -> None:
    several = [person(name) for name in ("One", "Two", "Three")]
    root = DirectoryGroup.objects.create(name="root")
    root.members.set(several)
    members_sync(actor=SCIM, people=several)
    RoleAssignment.objects.exclude(person__in=several).delete()
    root.members.clear()
    changes = members_sync(actor=SCIM, people=several)
    assert (changes.revoked, changes.kept) == (("admin", "admin"), ("admin",))
    assert RoleAssignment.objects.filter(role="admin").count() == 1


@pytest.mark.usefixtures("mapped")
def test_many_people_are_brought_in_line_with_as_many_queries_as_one(
    person: Callable[..., Person], django_assert_max_num_queries: Any
) -> None:
    many = [person(f"P{number}") for number in range(40)]
    group = DirectoryGroup.objects.create(name="clinical-leads")
    group.members.set(many)
    with django_assert_max_num_queries(14):
        changes = members_sync(actor=SCIM, people=many)
    assert len(changes.granted) == 40
    assert AuditEvent.objects.filter(action="role:grant", actor_id="scim").count() == 40
    group.members.clear()
    with django_assert_max_num_queries(14):
        changes = members_sync(actor=SCIM, people=many)
    assert len(changes.revoked) == 40
