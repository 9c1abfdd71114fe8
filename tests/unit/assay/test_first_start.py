"""A first start without the demo: `assay init`, the first steps, and a request for a role."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from django.utils import timezone

from governance.errors import NotFound, NotPermitted, QuotaExceeded, WrongState
from governance.people.access_requests import (
    access_request_create,
    access_request_decline,
    access_requests_open,
)
from governance.people.links import link_open
from governance.people.models import AccessRequest, Department, Person, RoleAssignment
from governance.people.selectors import principal_for_person
from governance.policy.models import PolicyVersion
from governance.principals import Principal
from registry.versions.models import Model
from tests.proofs import signed_in
from tests.unit.assay.portal_data import tell_story
from tests.unit.assay.test_portal_pages import inline_in
from tests.unit.audit_support import recorded_all

pytestmark = pytest.mark.sweep


def printed(**options: Any) -> str:
    out = StringIO()
    call_command("init", stdout=out, **options)
    return out.getvalue()


@pytest.mark.django_db
def test_init_makes_an_installation_and_prints_the_first_link(redis: Any) -> None:
    text = printed(admin="Ada@example.org", name="Ada")
    assert PolicyVersion.objects.count() == 1
    ada = Person.objects.get()
    address = re.search(r"http\S+/sign-in/link#\w+", text)
    assert address is not None
    assert link_open(text=address[0]).person_id == ada.pk
    assert "Add a second administrator" in text
    again = printed(admin="ada@example.org")
    assert "/sign-in/link#" in again
    assert Person.objects.count() == 1
    ada.set_password("correct horse battery")
    ada.save()
    assert "/sign-in/link#" not in printed()


@pytest.mark.django_db
def test_init_asks_for_the_first_administrator(redis: Any) -> None:
    with pytest.raises(CommandError, match="--admin"):
        printed()
    with pytest.raises(CommandError, match="e-mail"):
        printed(admin="nobody")
    assert not Person.objects.exists()


@pytest.mark.django_db
def test_init_says_which_store_is_away(settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    with pytest.raises(CommandError, match=r"Redis or Valkey: .*correct REDIS_URL"):
        printed(admin="ada@example.org")
    assert not Person.objects.exists()


def test_an_administrator_of_an_empty_installation_sees_the_first_steps(
    policy: PolicyVersion, person: Callable[..., Person], department: Callable[[str], Department]
) -> None:
    ada = signed_in(Client(), person("Ada", "admin"))
    page = ada.get("/").content.decode()
    assert inline_in(page) == []
    assert page.count('class="tag tag-ok">Done') == 0
    assert "Add a second administrator" in page
    person("Adil", "admin")
    lena = person("Lena", "lead@clinical")
    assert ada.get("/").content.decode().count('class="tag tag-ok">Done') == 3
    assert "First steps" not in signed_in(Client(), lena).get("/").content.decode()
    person("Sana", "reviewer:security")
    clinical = department("clinical")
    Model.objects.create(name="base", task="text-generation", created_by=lena, department=clinical)
    assert "First steps" not in ada.get("/").content.decode()


def test_the_demonstrations_installation_shows_no_first_steps(db: None) -> None:
    company = tell_story()
    steps = "First steps" in signed_in(Client(), company.people["ada"]).get("/").content.decode()
    several = RoleAssignment.objects.filter(role="admin").count() > 1
    assert steps is not several


@pytest.fixture
def admin(actor: Callable[..., Principal]) -> Principal:
    return actor("Ada", "admin")


def test_a_person_without_a_role_asks_for_one_and_an_administrator_sees_it(
    admin: Principal, person: Callable[..., Person]
) -> None:
    nina = person("Nina")
    browser, ada = (
        signed_in(Client(), nina),
        signed_in(Client(), Person.objects.get(name="Ada")),
    )
    page = browser.get("/").content.decode()
    assert inline_in(page) == []
    assert "You have no role yet" in page
    assert browser.post("/access-request", {"text": ""}).status_code == 400
    assert browser.post("/access-request", {"text": "Fine-tune for clinical"}).status_code == 302
    assert browser.post("/access-request", {"text": "again"}).status_code == 429
    assert "Fine-tune for clinical" in browser.get("/").content.decode()
    for path in ("/", "/people"):
        assert "Fine-tune for clinical" in ada.get(path).content.decode(), path
    (event,) = recorded_all(action="person:request_access", outcome="allowed")
    assert event.actor_name == "Nina"
    # A role answers it.
    RoleAssignment.objects.create(person=nina, role="operator")
    assert "Fine-tune for clinical" not in ada.get("/people").content.decode()
    assert "no role yet" not in browser.get("/").content.decode()
    assert browser.post("/access-request", {"text": "more"}).status_code == 409


def test_requests_are_bounded_and_declined_by_who_grants_roles(
    admin: Principal, actor: Callable[..., Principal], person: Callable[..., Person]
) -> None:
    nina = person("Nina")
    me = principal_for_person(nina)
    asked = access_request_create(actor=me, text="Please")
    lead, auditor = actor("Lena", "lead@clinical"), actor("Asha", "auditor")
    for other in (lead, auditor, me):
        assert not access_requests_open(other).exists()
        with pytest.raises((NotFound, NotPermitted)):
            access_request_decline(actor=other, request_id=asked.pk)
    access_request_decline(actor=admin, request_id=asked.pk)
    with pytest.raises(NotFound):
        access_request_decline(actor=admin, request_id=asked.pk)
    with pytest.raises(QuotaExceeded):
        access_request_create(actor=me, text="Please")
    AccessRequest.objects.update(created_at=timezone.now() - timedelta(days=2))
    second = access_request_create(actor=me, text="Please again")
    assert [each.pk for each in access_requests_open(admin)] == [second.pk]
    AccessRequest.objects.update(created_at=timezone.now() - timedelta(days=31))
    assert not access_requests_open(admin).exists()
    third = access_request_create(actor=me, text="A third time")
    assert AccessRequest.objects.filter(closed_at=None).get() == third
    with pytest.raises(WrongState):
        access_request_create(actor=admin, text="More")


def test_declining_in_the_portal(admin: Principal, person: Callable[..., Person]) -> None:
    nina = person("Nina")
    asked = access_request_create(actor=principal_for_person(nina), text="Please")
    ada = signed_in(Client(), Person.objects.get(name="Ada"))
    answer = ada.post(f"/people/access-requests/{asked.pk}/decline")
    assert answer.status_code == 302
    page = signed_in(Client(), nina).get("/").content.decode()
    assert "was declined" in page
    vera = signed_in(Client(), person("Vera", "viewer@finance"))
    assert vera.post(f"/people/access-requests/{asked.pk}/decline").status_code == 404
