"""One person becomes no other person who decides, and has no second hand in anything that takes
two: each door by its name. `test_two_votes.py` looks for sequences.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.utils import timezone

from assay.accounts import crypto
from assay.accounts.factors import factors_reset
from governance.errors import DomainError, NotPermitted, WrongState
from governance.keys.models import ApiKey
from governance.keys.services import access_token_create
from governance.people.credentials import sign_in_admins_of
from governance.people.links import link_open, password_link_create
from governance.people.models import OneTimeLink, Person, RoleAssignment, RoleRequest
from governance.people.recoveries.models import AccountNotice
from governance.people.role_requests import role_request_approve
from governance.people.roles import role_grant
from governance.people.services import person_deactivate, person_reactivate
from governance.policy.lifecycle import draft_create, policy_approve, policy_propose
from governance.policy.models import PolicyVersion
from governance.reviews.absences.models import Absence
from governance.reviews.absences.services import absence_set
from registry.incidents.suspending import excluded_people
from registry.intake.models import Intake
from registry.intake.services import intake_sign_off
from tests.people import set_up_alone
from tests.proofs import proven, signed_in
from tests.unit.assay.portal_data import Company
from tests.unit.assay.scim_support import TOKEN, Scim, error_of
from tests.unit.assay.sign_in_support import Visitor, code_of, give_totp, with_password
from tests.unit.governance.test_review_reminders import Postbox, postbox

__all__ = ["postbox"]

pytestmark = [pytest.mark.usefixtures("policy", "redis"), pytest.mark.sweep]
NEW = "another horse and another battery"


@pytest.fixture
def provider(settings: Any) -> Scim:
    settings.SCIM_TOKEN = TOKEN
    return Scim()


def shown_link(page: str) -> str:
    """Return the one-time link on a page; empty when it shows none."""
    found = re.search(r"http[^<\"]+/sign-in/link#\w+", page)
    return found[0] if found else ""


@pytest.mark.parametrize("role", ["admin", "reviewer:security", "operator", "auditor"])
def test_resetting_factors_and_opening_ones_own_link(
    person: Callable[..., Person], role: str
) -> None:
    ada, bea = person("Ada", "admin"), person("Bea", role)
    give_totp(bea)
    bea.refresh_from_db()
    before = bea.empowered_at
    mallory = signed_in(Client(), ada)
    mallory.post(f"/people/{bea.pk}/factors/reset", {"reason": "They lost their phone."})
    page = mallory.post(f"/people/{bea.pk}/link", {"purpose": "password"}).content.decode()
    link = shown_link(page)
    visitor = Visitor()
    visitor.post("/sign-in/link", link=link)
    visitor.get("/sign-in/link/password")
    if sealed := visitor.client.session.get("assay_totp_secret"):
        secret = crypto.decrypt(sealed)
        visitor.post("/sign-in/link/password", password=NEW, again=NEW, code=code_of(secret))
    bea.refresh_from_db()
    assert not bea.check_password(NEW)
    assert not OneTimeLink.objects.filter(person=bea, used_at__isnull=False, created_by=ada)
    assert bea.empowered_at == before
    assert Visitor().password(bea, NEW).status_code == 401


def puppet_of(maker: Person, person: Person) -> Person:
    """An account whose sign-in the administrator set up alone, by opening their own link."""
    _, address = password_link_create(actor=proven(maker), person_id=person.pk)
    visitor = Visitor()
    assert visitor.post("/sign-in/link", link=address).status_code == 302
    done = visitor.post("/sign-in/link/password", password=NEW, again=NEW)
    assert done.status_code == 200, done.content.decode()
    assert sign_in_admins_of({person.pk}) == {maker.pk}
    return person


def test_a_role_taken_away_and_granted_again(person: Callable[..., Person]) -> None:
    """Without the role the account is nobody's business, and Ada takes it over; the second
    administrator grants the role again in good faith, and still the account decides nothing."""
    ada, bea, rex = person("Ada", "admin"), person("Bea", "admin"), person("Rex")
    RoleAssignment.objects.create(person=rex, role="admin")
    rex.role_assignments.all().delete()
    puppet_of(ada, rex)
    asked = role_grant(actor=proven(ada), person=rex, role="admin")
    assert isinstance(asked, RoleRequest)
    role_request_approve(actor=proven(bea), request_id=asked.pk)
    rex.refresh_from_db()
    assert proven(rex).unconfirmed
    with pytest.raises(NotPermitted) as caught:
        role_grant(actor=proven(rex), person=ada, role="operator")
    assert caught.value.code == "sign_in_unconfirmed"


def test_a_delivery_of_ones_own_account(company: Company) -> None:
    ada, intake = company.ada, company.signable
    RoleAssignment.objects.create(person=ada, role="operator")
    submitter = intake.submitted_by
    # A lead's account decides nothing: one administrator resets it.
    factors_reset(actor=proven(ada), person_id=submitter.pk, reason="Lost.")
    puppet_of(ada, submitter)
    with pytest.raises(NotPermitted) as caught:
        intake_sign_off(actor=proven(ada), intake_id=intake.pk, accept=True, reason="Fine.")
    assert caught.value.code == "separation_of_duties"
    assert Intake.objects.get(pk=intake.pk).state == "awaiting_sign_off"


def test_who_set_an_author_up_is_excluded_from_lifting_a_suspension(company: Company) -> None:
    company.incident.reporter = set_up_alone(company.milo, company.fay)
    assert company.milo.pk in excluded_people(company.incident, [], [])


def test_a_policy_that_ones_own_account_drafted(company: Company) -> None:
    author = Person.objects.create(name="Author", email="author@assay.example")
    author.set_unusable_password()
    author.save()
    puppet_of(company.ada, author)
    Person.objects.filter(pk=author.pk).update(unconfirmed_at=timezone.now() - timedelta(days=1))
    RoleAssignment.objects.create(person=author, role="admin")
    author.refresh_from_db()
    rules = PolicyVersion.objects.get(number=1).rules
    draft = draft_create(actor=proven(author), rules=rules, note="Mine.")
    policy_propose(actor=proven(author), number=draft.number)
    with pytest.raises(NotPermitted) as caught:
        policy_approve(actor=proven(company.ada), number=draft.number)
    assert caught.value.code == "separation_of_duties"


def test_naming_oneself_the_deputy_of_another_reviewer(person: Callable[..., Person]) -> None:
    """A specialty takes two administrators; a deputyship that one gives themselves is one."""
    ada = person("Ada", "admin", "reviewer:compliance")
    rex, milo = person("Rex", "reviewer:security"), person("Milo", "reviewer:privacy")
    now = timezone.now()
    span = {"specialty": "security", "starts_at": now, "ends_at": now + timedelta(days=1)}
    with pytest.raises(NotPermitted) as caught:
        absence_set(actor=proven(ada), person=rex, deputy=ada, **span)
    assert caught.value.code == "separation_of_duties"
    with pytest.raises(IntegrityError), transaction.atomic():
        Absence.objects.create(person=rex, deputy=ada, set_by=ada, **span)
    absence_set(actor=proven(ada), person=rex, deputy=milo, **span)
    Absence.objects.create(person=milo, deputy=ada, set_by=milo, **span)


def test_a_reset_while_the_account_is_inactive(person: Callable[..., Person]) -> None:
    """Its groups may give an inactive account its roles again, so its factors stay."""
    ada, vera = person("Ada", "admin"), person("Vera", "viewer@finance")
    give_totp(vera)
    person_deactivate(actor=proven(ada), person_id=vera.pk, reason="Away.")
    with pytest.raises(WrongState, match="inactive"):
        factors_reset(actor=proven(ada), person_id=vera.pk, reason="Lost.")
    person_reactivate(actor=proven(ada), person_id=vera.pk)
    factors_reset(actor=proven(ada), person_id=vera.pk, reason="Lost.")


def test_a_session_of_a_leaked_password_ends_when_the_account_becomes_an_administrators(
    person: Callable[..., Person], settings: Any
) -> None:
    settings.SECOND_FACTOR_ROLES = ["admin"]
    ada, bea = person("Ada", "admin"), person("Bea", "admin")
    cleo = with_password(person("Cleo", "viewer@finance"))
    thief = Visitor().sign_in(cleo)
    access_token_create(person=cleo, name="the thief's")
    asked = role_grant(actor=proven(ada), person=cleo, role="admin")
    assert isinstance(asked, RoleRequest)
    assert thief.is_in()
    role_request_approve(actor=proven(bea), request_id=asked.pk)
    assert not thief.is_in()
    assert not ApiKey.objects.filter(person=cleo, revoked_at=None).exists()


def test_the_provider_moves_no_address_of_a_role_that_administrators_granted(
    person: Callable[..., Person], provider: Scim
) -> None:
    """With the address come the account's links, and the match of a first single sign-on."""
    rex = person("Rex", "reviewer:security")
    path = f"Users/{rex.pk}"
    user = provider.get(path).body
    emails = [{"value": "m@evil.example", "primary": True}]
    operation = {"op": "replace", "path": "emails", "value": emails}
    for answer in (
        provider.call("PUT", path, {**user, "emails": emails}),
        provider.patch(path, operation),
    ):
        error_of(answer, 409)
        rex.refresh_from_db()
        assert rex.email == "rex@example.org"
    # Other attributes change as before.
    assert provider.call("PUT", path, {**user, "displayName": "Rex II"}).status_code == 200


def test_an_address_that_the_provider_moves_takes_no_open_link_with_it(
    person: Callable[..., Person], provider: Scim, postbox: Postbox
) -> None:
    ada, vera = person("Ada", "admin"), person("Vera", "viewer@finance")
    RoleAssignment.objects.create(
        person=vera, role="reviewer", specialty="privacy", source="scim", group="g"
    )
    give_totp(vera)
    _, address = password_link_create(actor=proven(ada), person_id=vera.pk)
    user = provider.get(f"Users/{vera.pk}").body
    user["emails"] = [{"value": "vera.new@example.org", "primary": True}]
    assert provider.call("PUT", f"Users/{vera.pk}", user).status_code == 200
    with pytest.raises(DomainError):
        link_open(text=address)
    vera.refresh_from_db()
    assert vera.empowered_at is not None
    told = AccountNotice.objects.filter(kind="address").values_list("person__name", "address")
    assert set(told) >= {("Vera", ""), ("Vera", "vera@example.org"), ("Ada", "")}


def test_a_group_makes_nobody_decide_whose_factor_two_parties_do_not_know(
    person: Callable[..., Person],
) -> None:
    """An identity provider alone signs in as a new person, who adds a passkey while they have no
    role; then it adds them to the reviewers. Twice, that would be two votes."""
    new = with_password(person("New"))
    visitor = Visitor().sign_in(new)
    visitor.get("/account/authenticator")
    secret = crypto.decrypt(visitor.client.session["assay_totp_secret"])
    assert visitor.post("/account/authenticator", code=code_of(secret)).status_code == 200
    RoleAssignment.objects.create(
        person=new, role="reviewer", specialty="privacy", source="scim", group="g"
    )
    new.refresh_from_db()
    assert proven(new).unconfirmed
    # They keep what concerns their own account alone.
    visitor.post("/account/prove", code=code_of(secret, step=1))
    assert visitor.post("/account/recovery-codes").status_code == 200


def test_the_constraint_on_deputies_holds_for_every_row() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT convalidated FROM pg_constraint "
            "WHERE conname = 'nobody_makes_themselves_anothers_deputy'"
        )
        assert cursor.fetchone() == (True,)


def test_an_unused_link_of_one_administrator_gives_no_hand_in_the_account(
    person: Callable[..., Person],
) -> None:
    ada, vera = person("Ada", "admin"), person("Vera", "viewer@finance")
    password_link_create(actor=proven(ada), person_id=vera.pk)
    assert sign_in_admins_of({vera.pk}) == set()


def test_makers_of_makers_count(person: Callable[..., Person]) -> None:
    """A policy may let a lead keep their department's people: the chain does not end there."""
    people = [person(name) for name in ("Ann", "Ben", "Cem")]
    for maker, made in itertools.pairwise(people):
        set_up_alone(maker, made)
    assert sign_in_admins_of({people[2].pk}) == {people[0].pk, people[1].pk}
