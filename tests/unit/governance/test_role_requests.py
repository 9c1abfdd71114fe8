"""Administrator and reviewer take two administrators: one requests, another approves."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from governance.errors import NotPermitted, WrongState
from governance.people.directory import GroupRecord, directory_group_create
from governance.people.groups import group_mapping_create
from governance.people.models import (
    GroupMapping,
    Person,
    RoleAssignment,
    RoleRequest,
)
from governance.people.privileges import ALLOWED_TRANSITIONS, role_request_set_state
from governance.people.role_requests import (
    role_request_approve,
    role_request_reject,
    role_request_withdraw,
    role_requests_expire_due,
)
from governance.people.services import (
    first_admin_create,
    person_create,
    person_deactivate,
    role_grant,
    role_revoke,
)
from governance.principals import Principal, service_principal
from tests.proofs import proven
from tests.unit.audit_support import bodies

pytestmark = pytest.mark.django_db
Actor = Callable[..., Principal]
MakePerson = Callable[..., Person]


@pytest.fixture
def ada(actor: Actor) -> Principal:
    return actor("Ada", "admin")


@pytest.fixture
def adil(actor: Actor) -> Principal:
    return actor("Adil", "admin")


def requested(ada: Principal, person: Person, role: str = "admin", **more: Any) -> RoleRequest:
    made = role_grant(actor=ada, person=person, role=role, **more)
    assert isinstance(made, RoleRequest)
    return made


def roles(person: Person) -> set[str]:
    return set(person.role_assignments.values_list("role", flat=True))


@pytest.mark.parametrize(("role", "specialty"), [("admin", ""), ("reviewer", "security")])
def test_one_administrator_requests_and_another_grants(
    ada: Principal, adil: Principal, person: MakePerson, role: str, specialty: str
) -> None:
    eve = person("Eve")
    request = requested(ada, eve, role, specialty=specialty)
    assert roles(eve) == set()
    with pytest.raises(NotPermitted, match="Ada requested it"):
        role_request_approve(actor=ada, request_id=request.pk)
    role_request_approve(actor=adil, request_id=request.pk)
    held = eve.role_assignments.get()
    assert (held.role, held.granted_by_id, held.approved_by_id) == (
        role, ada.person_id, adil.person_id,
    )  # fmt: skip
    granted = bodies(action="role:grant")[-1]["data"]
    assert granted["requested_by"] == str(ada.person_id)
    assert granted["proof_method"] == "totp"
    assert [each["action"] for each in bodies(subject_type="person", subject_id=str(eve.pk))] == [
        "role:request", "role:approve", "role:grant",
    ]  # fmt: skip
    with pytest.raises(WrongState, match="is approved"):
        role_request_approve(actor=adil, request_id=request.pk)


def test_other_roles_take_one_administrator(
    ada: Principal, adil: Principal, person: MakePerson
) -> None:
    otto = person("Otto")
    role_grant(actor=ada, person=otto, role="operator")
    assert RoleAssignment.objects.get(person=otto).role == "operator"
    assert bodies(action="role:grant")[-1]["subject_id"] == str(otto.pk)


def test_a_single_administrator_sets_up_alone_and_the_log_says_so(
    ada: Principal, person: MakePerson
) -> None:
    first, second = person("Bea"), person("Cyd")
    role_grant(actor=ada, person=first, role="reviewer", specialty="security")
    role_grant(actor=ada, person=second, role="admin")
    assert [each["data"]["setup"] for each in bodies(action="role:grant")] == [True, True]
    # Two exist from here on.
    requested(ada, person("Dan"))


def test_removing_the_others_does_not_bring_setup_back(policy: object, person: MakePerson) -> None:
    first = first_admin_create(email="a@example.org", name="Ada")
    ada = proven(first)
    other = person("Adil")
    made = role_grant(actor=ada, person=other, role="admin")
    assert isinstance(made, RoleAssignment)
    role_revoke(actor=ada, assignment_id=made.pk)
    assert RoleAssignment.objects.filter(role="admin").count() == 1
    requested(ada, person("Puppet"))


def test_a_puppet_of_one_administrator_gets_nothing(ada: Principal, adil: Principal) -> None:
    """The four-second attack with a leaked token, step by step."""
    puppet = person_create(actor=ada, email="puppet@example.org", name="Puppet")
    request = requested(ada, puppet)
    with pytest.raises(NotPermitted):
        role_request_approve(actor=proven(puppet), request_id=request.pk)
    assert roles(puppet) == set()


def test_whoever_would_hold_the_role_does_not_approve_it(ada: Principal, adil: Principal) -> None:
    beneficiary = Person.objects.get(pk=adil.person_id)
    request = requested(ada, beneficiary, "reviewer", specialty="privacy")
    with pytest.raises(NotPermitted, match="would hold the role"):
        role_request_approve(actor=adil, request_id=request.pk)


def test_a_request_dies_with_the_right_of_whoever_made_it(
    ada: Principal, adil: Principal, actor: Actor, person: MakePerson
) -> None:
    request = requested(ada, person("Eve"))
    person_deactivate(actor=adil, person_id=int(ada.id), reason="The token leaked.")
    with pytest.raises(WrongState, match="may no longer grant roles"):
        role_request_approve(actor=adil, request_id=request.pk)


def test_it_expires(ada: Principal, adil: Principal, person: MakePerson) -> None:
    eve = person("Eve")
    request = requested(ada, eve)
    RoleRequest.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(WrongState, match="has expired"):
        role_request_approve(actor=adil, request_id=request.pk)
    # A new one may be made before the controller has closed it.
    assert requested(ada, eve).pk != request.pk
    RoleRequest.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert role_requests_expire_due() == 1
    assert set(RoleRequest.objects.values_list("state", flat=True)) == {"expired"}
    assert len(bodies(action="role:expire")) == 2


def test_it_is_requested_once(ada: Principal, adil: Principal, person: MakePerson) -> None:
    eve = person("Eve")
    requested(ada, eve)
    with pytest.raises(WrongState, match="already requested"):
        role_grant(actor=adil, person=eve, role="admin")


def test_it_is_rejected_with_a_reason_and_withdrawn_without(
    ada: Principal, adil: Principal, person: MakePerson
) -> None:
    request = requested(ada, person("Eve"))
    role_request_reject(actor=adil, request_id=request.pk, reason="Not needed.")
    assert bodies(action="role:reject")[-1]["reason"] == "Not needed."
    other = requested(ada, person("Finn"))
    role_request_withdraw(actor=ada, request_id=other.pk)
    assert RoleAssignment.objects.filter(role="admin").count() == 2


def test_a_group_takes_two_administrators_too(
    ada: Principal, adil: Principal, person: MakePerson
) -> None:
    eve = person("Eve")
    members = frozenset({eve.pk, int(adil.id)})
    directory_group_create(
        actor=service_principal("scim"),
        record=GroupRecord(name="reviewers", external_id="", members=members),
    )
    request = group_mapping_create(
        actor=ada, group="reviewers", role="reviewer", specialty="security"
    )
    assert isinstance(request, RoleRequest)
    assert not GroupMapping.objects.exists()
    with pytest.raises(NotPermitted, match="is in the group"):
        role_request_approve(actor=adil, request_id=request.pk)
    third = Person.objects.create(name="Cyd", email="cyd@example.org")
    RoleAssignment.objects.create(person=third, role="admin")
    role_request_approve(actor=proven(third), request_id=request.pk)
    mapping = GroupMapping.objects.get()
    assert (mapping.created_by_id, mapping.approved_by_id) == (ada.person_id, third.pk)
    assert roles(eve) == {"reviewer"}


def test_a_mapping_gives_nothing_to_whoever_approved_it(ada: Principal, adil: Principal) -> None:
    request = group_mapping_create(actor=ada, group="g", role="reviewer", specialty="security")
    assert isinstance(request, RoleRequest)
    role_request_approve(actor=adil, request_id=request.pk)
    directory_group_create(
        actor=service_principal("scim"),
        record=GroupRecord(name="g", external_id="", members=frozenset({int(adil.id)})),
    )
    assert roles(Person.objects.get(pk=adil.person_id)) == {"admin"}


def test_every_allowed_transition_is_saved(
    ada: Principal, adil: Principal, person: MakePerson
) -> None:
    for before, following in ALLOWED_TRANSITIONS.items():
        for after in following:
            RoleRequest.objects.all().delete()
            request = requested(ada, person(f"P {before} {after}"))
            rows = RoleRequest.objects.filter(pk=request.pk)
            rows.update(state=before, decided_by=int(adil.id), decided_at=timezone.now())
            request = rows.select_related("person").get()
            role_request_set_state(actor=adil, request=request, state=after)
            assert rows.get().state == after


def test_the_database_wants_three_people_too(
    ada: Principal, adil: Principal, person: MakePerson
) -> None:
    eve = person("Eve")
    rows = RoleRequest.objects.filter(pk=requested(ada, eve).pk)
    now = timezone.now()
    for wrong in (
        {"state": "approved"},
        {"state": "approved", "decided_by": int(ada.id), "decided_at": now},
        {"state": "approved", "decided_by": eve.pk, "decided_at": now},
        {"requested_by": eve.pk},
        {"role": "operator"},
        {"group": "g"},
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            rows.update(**wrong)
