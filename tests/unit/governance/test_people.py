from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, get_args

import pytest
import redis as redis_module
from django.db import IntegrityError, connection, transaction

from governance.audit.models import AuditEvent
from governance.errors import (
    InvalidInput,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    QuotaExceeded,
    Unavailable,
    WrongState,
)
from governance.people import attempts
from governance.people.models import (
    DEPARTMENT_ROLES,
    PLATFORM_ROLES,
    Department,
    Person,
    RoleAssignment,
)
from governance.people.selectors import (
    department_get,
    departments_visible_to,
    people_visible_to,
    person_get,
    principal_for_person,
)
from governance.people.services import (
    department_create,
    person_create,
    role_grant,
    role_revoke,
)
from governance.people.signing_in import password_check
from governance.policy.rules import DepartmentRole, PlatformRole
from governance.principals import ActorRole, Principal, RequestContext, request_context
from tests.proofs import proven
from tests.unit.policy_support import install_rules

PASSWORD = "correct horse battery"


@pytest.fixture
def admin(actor: Callable[..., Principal]) -> Principal:
    return actor("Ada", "admin")


def test_the_policy_knows_the_roles_that_people_hold() -> None:
    assert set(get_args(PlatformRole)) == {role.value for role in PLATFORM_ROLES}
    assert set(get_args(DepartmentRole)) == {role.value for role in DEPARTMENT_ROLES} | {"key"}


def test_an_admin_makes_a_department_once(admin: Principal) -> None:
    made = department_create(actor=admin, slug="clinical", name="Clinical")
    assert department_get(slug="clinical") == made
    assert AuditEvent.objects.filter(action="department:create", subject_id="clinical").exists()
    with pytest.raises(WrongState, match="clinical already exists"):
        department_create(actor=admin, slug="clinical", name="Clinical")


@pytest.mark.parametrize(
    "slug", ["", "a", "-a", "A1", "1a", "a_b", "a" * 41, "a\x00b", "a\n", "a-"]
)
def test_a_slug_of_the_wrong_form_is_refused(admin: Principal, slug: str) -> None:
    with pytest.raises(InvalidInput, match="short name"):
        department_create(actor=admin, slug=slug, name="X")


def test_only_an_admin_makes_departments_people_and_roles(
    actor: Callable[..., Principal], person: Callable[..., Person]
) -> None:
    lead = actor("Lena", "lead@clinical")
    colleague = person("Carl", "viewer@clinical")
    with pytest.raises(NotPermitted):
        department_create(actor=lead, slug="finance", name="Finance")
    with pytest.raises(NotPermitted):
        person_create(actor=lead, email="x@example.org", name="X")
    with pytest.raises(NotPermitted):
        role_grant(actor=lead, person=colleague, role="admin")
    with pytest.raises(NotFound):
        role_grant(actor=lead, person=person("Finn", "viewer@finance"), role="admin")


def account(admin: Principal, email: str, name: str) -> Person:
    """A person who has set a password."""
    made = person_create(actor=admin, email=email, name=name)
    made.set_password(PASSWORD)
    made.save()
    return made


def test_a_person_signs_in_whatever_the_case_of_their_address(
    admin: Principal, redis: redis_module.Redis
) -> None:
    made = account(admin, " Grace@Example.org ", "Grace")
    assert made.email == "grace@example.org"
    assert password_check(email="GRACE@example.org", password=PASSWORD) == made


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"email": "nobody"}, "email"),
        ({"email": "a\x00@example.org"}, "email"),
        ({"name": ""}, "name"),
        ({"name": "a\x00"}, "name"),
    ],
)
def test_an_account_that_is_asked_for_wrongly_is_not_made(
    admin: Principal, changes: dict[str, str], field: str
) -> None:
    asked = {"email": "x@example.org", "name": "X"} | changes
    with pytest.raises(InvalidInput) as caught:
        person_create(actor=admin, **asked)
    assert list(caught.value.fields) == [field]
    assert Person.objects.count() == 1


def test_one_address_one_account(admin: Principal) -> None:
    person_create(actor=admin, email="x@example.org", name="X")
    with pytest.raises(WrongState, match="already has an account"):
        person_create(actor=admin, email="X@example.org", name="Y")


def test_every_wrong_sign_in_gets_the_same_answer(
    admin: Principal, person: Callable[..., Person], redis: redis_module.Redis
) -> None:
    account(admin, "x@example.org", "X")
    gone = account(admin, "gone@example.org", "G")
    Person.objects.filter(pk=gone.pk).update(is_active=False)
    person_create(actor=admin, email="none@example.org", name="N")
    answers = set()
    for email, password in (
        ("x@example.org", "wrong"),
        ("x@example.org", PASSWORD * 20),
        ("gone@example.org", PASSWORD),
        ("none@example.org", ""),
        ("unknown@example.org", PASSWORD),
        ("a\x00b", PASSWORD),
    ):
        with pytest.raises(NotAuthenticated) as caught:
            password_check(email=email, password=password)
        answers.add(caught.value.message)
        assert caught.value.attempt is not None
        assert caught.value.attempt.action == "person:sign_in"
    assert len(answers) == 1


def test_too_many_failures_lock_that_address_out_and_no_other(
    admin: Principal, redis: redis_module.Redis
) -> None:
    account(admin, "x@example.org", "X")
    here = request_context.set(RequestContext(client_address="192.0.2.1"))
    for _ in range(attempts.MAX_FAILURES):
        with pytest.raises(NotAuthenticated):
            password_check(email="x@example.org", password="wrong")
    with pytest.raises(QuotaExceeded, match="Too many failed sign-ins") as caught:
        password_check(email="x@example.org", password=PASSWORD)
    assert caught.value.attempt is not None
    assert 0 < (caught.value.retry_after or 0) <= attempts.WINDOW_S
    request_context.reset(here)
    assert password_check(email="x@example.org", password=PASSWORD).name == "X"


def test_success_forgets_the_failures(admin: Principal, redis: redis_module.Redis) -> None:
    account(admin, "x@example.org", "X")
    for _ in range(attempts.MAX_FAILURES - 1):
        with pytest.raises(NotAuthenticated):
            password_check(email="x@example.org", password="wrong")
    password_check(email="x@example.org", password=PASSWORD)
    assert not redis.keys("assay:sign-in-failures:*")


def test_without_the_counter_nobody_signs_in(admin: Principal, settings: Any) -> None:
    account(admin, "x@example.org", "X")
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    with pytest.raises(Unavailable):
        password_check(email="x@example.org", password=PASSWORD)


def test_nobody_grants_themselves_a_role(admin: Principal, person: Callable[..., Person]) -> None:
    ada = Person.objects.get(pk=admin.person_id)
    with pytest.raises(NotPermitted, match=r"(?i)separation of duties: Ada") as caught:
        role_grant(actor=admin, person=ada, role="reviewer", specialty="security")
    assert caught.value.attempt is not None
    assert caught.value.attempt.action == "role:grant"


def test_a_granted_role_counts_from_the_next_request(
    admin: Principal, person: Callable[..., Person], department: Callable[[str], Department]
) -> None:
    carl = person("Carl")
    held = role_grant(actor=admin, person=carl, role="lead", department=department("clinical"))
    assert held.granted_by_id == admin.person_id
    assert principal_for_person(carl).roles == {ActorRole("lead", "clinical")}
    with pytest.raises(WrongState, match="lead in clinical already"):
        role_grant(actor=admin, person=carl, role="lead", department=department("clinical"))
    role_revoke(actor=admin, assignment_id=held.pk)
    assert principal_for_person(carl).roles == frozenset()
    assert list(
        AuditEvent.objects.filter(subject_type="person", subject_id=str(carl.pk))
        .order_by("pk")
        .values_list("action", flat=True)
    ) == ["role:grant", "role:revoke"]


@pytest.mark.parametrize(
    ("role", "in_department", "specialty", "field"),
    [
        ("emperor", False, "", "role"),
        ("lead", False, "", "department"),
        ("admin", True, "", "department"),
        ("reviewer", False, "", "specialty"),
        ("reviewer", False, "cheese", "specialty"),
        ("admin", False, "security", "specialty"),
    ],
)
def test_a_role_that_does_not_fit_is_refused(
    admin: Principal,
    person: Callable[..., Person],
    department: Callable[[str], Department],
    role: str,
    in_department: bool,
    specialty: str,
    field: str,
) -> None:
    with pytest.raises(InvalidInput) as caught:
        role_grant(
            actor=admin,
            person=person("Carl"),
            role=role,
            department=department("clinical") if in_department else None,
            specialty=specialty,
        )
    assert list(caught.value.fields) == [field]


def test_an_inactive_person_holds_nothing_and_gets_nothing(
    admin: Principal, person: Callable[..., Person]
) -> None:
    carl = person("Carl", "admin")
    carl.is_active = False
    carl.save()
    assert principal_for_person(carl).roles == frozenset()
    with pytest.raises(WrongState, match="inactive"):
        role_grant(actor=admin, person=carl, role="operator")


def test_the_last_admin_stays(admin: Principal, person: Callable[..., Person]) -> None:
    own = RoleAssignment.objects.get(person_id=admin.person_id)
    inactive = person("Ines", "admin")
    Person.objects.filter(pk=inactive.pk).update(is_active=False)
    with pytest.raises(WrongState, match="last administrator"):
        role_revoke(actor=admin, assignment_id=own.pk)
    person("Alan", "admin")
    role_revoke(actor=admin, assignment_id=own.pk)
    with pytest.raises(NotFound):
        role_revoke(actor=admin, assignment_id=own.pk)


def test_members_see_their_department_and_colleagues_only(
    actor: Callable[..., Principal],
    person: Callable[..., Person],
    department: Callable[[str], Department],
) -> None:
    department("engineering")
    stranger = person("Finn", "lead@finance")
    both = person("Bea", "viewer@clinical", "viewer@finance")
    vera = actor("Vera", "viewer@clinical")
    assert [d.slug for d in departments_visible_to(vera)] == ["clinical"]
    assert {p.name for p in people_visible_to(vera)} == {"Vera", "Bea"}
    assert person_get(actor=vera, person_id=both.pk) == both
    for missing in (stranger.pk, 10**30):
        with pytest.raises(NotFound):
            person_get(actor=vera, person_id=missing)
    for slug in ("finance", "cheese", "a\x00b"):
        with pytest.raises(NotFound):
            department_get(slug=slug, actor=vera)


def test_who_keeps_the_roles_of_a_department_gives_and_takes_none_beyond_it(
    policy: Any, person: Callable[..., Person], department: Callable[[str], Department]
) -> None:
    """Else a lead makes a colleague an administrator, who makes the lead one."""
    install_rules(
        [
            {
                "id": "leads-keep-roles",
                "effect": "permit",
                "description": "leads keep the roles of colleagues",
                "principal": {"member_roles": ["lead"]},
                "actions": ["person:view", "role:grant"],
                "conditions": [
                    {"attribute": "departments", "operator": "same_department"},
                    {"attribute": "context.time", "operator": "gte", "value": "00:00"},
                ],
            },
        ]
    )
    lead = proven(person("Fay", "lead@finance"))
    colleague = person("Vera", "viewer@finance", "viewer@clinical", "admin")
    person("Olga", "admin")

    granted = role_grant(
        actor=lead, person=colleague, role="developer", department=department("finance")
    )
    role_revoke(actor=lead, assignment_id=granted.pk)

    for role, slug in (("operator", None), ("lead", "clinical")):
        with pytest.raises(NotPermitted, match="may not grant or revoke"):
            role_grant(
                actor=lead,
                person=colleague,
                role=role,
                department=department(slug) if slug else None,
            )
    for held in colleague.role_assignments.exclude(department__slug="finance"):
        with pytest.raises(NotPermitted, match="may not grant or revoke"):
            role_revoke(actor=lead, assignment_id=held.pk)
    assert colleague.role_assignments.count() == 3


def test_the_database_keeps_roles_where_they_belong(
    person: Callable[..., Person], department: Callable[[str], Department]
) -> None:
    carl, clinical = person("Carl", "admin"), department("clinical")
    for held in (
        {"role": "lead"},
        {"role": "admin", "department": clinical},
        {"role": "reviewer"},
        {"role": "admin", "specialty": "security"},
        {"role": "admin"},
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            RoleAssignment.objects.create(person=carl, **held)


@pytest.mark.django_db(transaction=True)
def test_two_admins_at_once_cannot_both_take_the_others_role(
    actor: Callable[..., Principal],
) -> None:
    admins = [actor("Ada", "admin"), actor("Alan", "admin")]
    roles = {role.person_id: role.pk for role in RoleAssignment.objects.all()}
    results: list[Exception | None] = []

    def revoke(who: Principal, whose: Principal) -> None:
        try:
            role_revoke(actor=who, assignment_id=roles[whose.person_id or 0])
            results.append(None)
        except WrongState as error:
            results.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=revoke, args=pair) for pair in (admins, admins[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(type(result).__name__ for result in results) == ["NoneType", "WrongState"]
    assert RoleAssignment.objects.filter(role="admin").count() == 1
