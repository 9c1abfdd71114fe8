"""One-time links: who makes them, what they open, and that a first second factor needs one."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from django.test import Client
from django.urls import get_resolver
from django.utils import timezone

from assay.accounts import crypto
from assay.accounts.factors import factors_of, new_secret, totp_activate
from assay.accounts.links import password_set
from governance.audit.sealer import seal_once
from governance.errors import InvalidInput, NotFound, NotPermitted, WrongState
from governance.keys.models import ApiKey
from governance.keys.services import access_token_create
from governance.people.links import link_open, password_link_create
from governance.people.models import OneTimeLink, Person, RoleAssignment
from governance.people.selectors import principal_for_person
from governance.people.services import person_deactivate, person_reactivate
from governance.principals import Principal
from governance.reviews.reminders.channels import MailServer
from tests.abuse.surface import addresses
from tests.proofs import proven, signed_in
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.sign_in_support import (
    PASSWORD,
    Visitor,
    code_of,
    factor_link,
    give_passkey,
    give_totp,
    open_factor_link,
    recovery_address,
    with_password,
)
from tests.unit.assay.soft_passkey import SoftPasskey
from tests.unit.audit_support import bodies, recorded_all
from tests.unit.dump import found
from tests.unit.governance.test_review_reminders import Postbox, postbox

__all__ = ["postbox"]

pytestmark = [pytest.mark.usefixtures("policy", "redis"), pytest.mark.sweep]
NEW = "another horse and another battery"


@pytest.fixture
def admin(actor: Callable[..., Principal]) -> Principal:
    return actor("Ada", "admin")


def secret_of(address: str) -> str:
    return address.partition("#")[2].partition("_")[2]


def opened(address: str) -> Visitor:
    visitor = Visitor()
    answer = visitor.post("/sign-in/link", link=address)
    assert answer["Location"] == "/sign-in/link/password", answer.content
    return visitor


@pytest.mark.parametrize(
    ("give", "sentence"),
    [
        (lambda person: give_totp(person), "code that your authenticator app shows, or a recovery"),
        (
            lambda person: give_passkey(Visitor().sign_in(with_password(person))),
            "Type a recovery code of this account.",
        ),
    ],
)
def test_a_password_link_asks_for_a_code_that_the_account_can_give(
    admin: Principal,
    person: Callable[..., Person],
    give: Callable[[Person], object],
    sentence: str,
) -> None:
    vera = person("Vera", "viewer@finance")
    give(vera)
    _, address = password_link_create(actor=admin, person_id=vera.pk)
    page = " ".join(opened(address).get("/sign-in/link/password").content.decode().split())
    assert sentence in page
    assert "Scan the QR code" not in page


def test_an_invited_person_sets_their_own_password_once(
    admin: Principal, person: Callable[..., Person]
) -> None:
    vera = person("Vera", "viewer@finance")
    link, address = password_link_create(actor=admin, person_id=vera.pk)
    visitor = opened(address)
    assert "Scan the QR code" not in visitor.get("/sign-in/link/password").content.decode()
    fields = {"password": NEW, "again": NEW}
    assert (
        "Your password is set" in visitor.post("/sign-in/link/password", **fields).content.decode()
    )
    assert Visitor().password(vera, NEW).status_code == 302

    for again in (visitor, Visitor()):
        assert again.post("/sign-in/link/password", **fields).status_code == 404
    assert Visitor().post("/sign-in/link", link=address).status_code == 404
    link.refresh_from_db()
    assert link.used_at is not None
    (used,) = bodies(action="person:use_link", outcome="allowed")
    assert used["data"]["link"] == link.public_id
    assert [event.actor_name for event in recorded_all(action="person:invite")] == ["Ada"]


def test_who_decides_for_others_adds_a_second_factor_in_the_same_step(
    person: Callable[..., Person],
) -> None:
    carla = person("Carla", "reviewer:security")
    visitor = opened(recovery_address(carla, "password"))
    page = visitor.get("/sign-in/link/password").content.decode()
    assert "Scan the QR code" in page
    secret = crypto.decrypt(visitor.client.session["assay_totp_secret"])
    fields = {"password": NEW, "again": NEW}
    for code in ("", "000000"):
        assert visitor.post("/sign-in/link/password", **fields, code=code).status_code == 400
    carla.refresh_from_db()
    assert not carla.has_usable_password()
    assert not factors_of(carla.pk).any
    shown = visitor.post("/sign-in/link/password", **fields, code=code_of(secret)).content.decode()
    assert "recovery codes" in shown
    assert factors_of(carla.pk).totp is not None
    refused = Api().post("auth/token", {"email": carla.email, "password": NEW})
    problem_of(refused, 401, "second_factor_required")


@pytest.mark.parametrize("password", ["short", "password1234", "x" * 300])
def test_a_weak_password_leaves_the_link_usable(
    admin: Principal, person: Callable[..., Person], password: str
) -> None:
    vera = person("Vera", "viewer@finance")
    link, _ = password_link_create(actor=admin, person_id=vera.pk)
    with pytest.raises(InvalidInput) as caught:
        password_set(link_id=link.pk, password=password)
    assert list(caught.value.fields) == ["password"]
    password_set(link_id=link.pk, password=NEW)


def test_a_reset_ends_sessions_and_tokens_of_whoever_knew_the_old_password(
    admin: Principal, person: Callable[..., Person]
) -> None:
    vera = with_password(person("Vera", "viewer@finance"))
    thief = Visitor().sign_in(vera)
    access_token_create(person=vera, name="the thief's")
    _, address = password_link_create(actor=admin, person_id=vera.pk)
    assert recorded_all(action="person:reset_password")
    opened(address).post("/sign-in/link/password", password=NEW, again=NEW)
    assert not thief.is_in()
    assert not ApiKey.objects.filter(person=vera, revoked_at=None).exists()
    assert Visitor().password(vera).status_code == 401


def test_wrong_used_replaced_and_expired_links_get_one_answer(
    admin: Principal, person: Callable[..., Person]
) -> None:
    vera, gone = person("Vera", "viewer@finance"), person("Gone", "viewer@finance")
    _, replaced = password_link_create(actor=admin, person_id=vera.pk)
    link, used = password_link_create(actor=admin, person_id=vera.pk)
    password_set(link_id=link.pk, password=NEW)
    expired, late = password_link_create(actor=admin, person_id=vera.pk)
    OneTimeLink.objects.filter(pk=expired.pk).update(expires_at=timezone.now())
    _, inactive = password_link_create(actor=admin, person_id=gone.pk)
    person_deactivate(actor=admin, person_id=gone.pk, reason="Left.")
    wrong = late[:-1] + ("a" if late[-1] != "a" else "b")
    answers = set()
    for text in (replaced, used, late, inactive, wrong, "#no-such_link", "", "\x00", "x" * 9000):
        answer = Visitor().post("/sign-in/link", link=text)
        body = re.sub(r'(csrfmiddlewaretoken" value=")[^"]+', r"\1", answer.content.decode())
        answers.add((answer.status_code, body))
    assert len(answers) == 1
    assert next(iter(answers))[0] == 404
    person_reactivate(actor=admin, person_id=gone.pk)
    with pytest.raises(NotFound):
        link_open(text=inactive)


def test_guessing_links_locks_the_address_like_signing_in() -> None:
    statuses = [Visitor().post("/sign-in/link", link="#a_b").status_code for _ in range(52)]
    assert statuses[:50] == [404] * 50
    assert statuses[-1] == 429
    assert Visitor("198.51.100.9").post("/sign-in/link", link="#a_b").status_code == 404


def test_the_secret_is_in_no_address_log_referer_or_table(
    admin: Principal, person: Callable[..., Person], caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    settings.PORTAL_URL = "https://assay.example"
    vera = person("Vera", "viewer@finance")
    with caplog.at_level(logging.DEBUG):
        _, address = password_link_create(actor=admin, person_id=vera.pk)
        assert address.startswith("https://assay.example/sign-in/link#")
        visitor = opened(address)
        page = visitor.get("/sign-in/link/password")
        for _ in range(2):
            visitor.post("/sign-in/link", link=address)
    seal_once()
    secret = secret_of(address)
    assert len(secret) == 43
    assert secret not in caplog.text
    assert secret not in page.content.decode()
    assert page["Referrer-Policy"] == "same-origin"
    assert "no-store" in page["Cache-Control"]
    assert found((secret,)) == []


def test_only_another_administrator_with_a_fresh_factor_makes_a_link(
    admin: Principal, actor: Callable[..., Principal], person: Callable[..., Person]
) -> None:
    vera = person("Vera", "viewer@finance")
    ada = Person.objects.get(name="Ada")
    make = password_link_create
    with pytest.raises(NotPermitted) as caught:
        make(actor=principal_for_person(ada), person_id=vera.pk)
    assert caught.value.code == "step_up_required"
    with pytest.raises(NotPermitted, match="their own account"):
        make(actor=admin, person_id=ada.pk)
    for name, role in (("Lena", "lead@finance"), ("Asha", "auditor"), ("Omar", "operator")):
        with pytest.raises(NotPermitted):
            make(actor=actor(name, role), person_id=vera.pk)
    with pytest.raises(NotFound):
        make(actor=proven(Person.objects.get(name="Lena")), person_id=ada.pk)
    assert not OneTimeLink.objects.exists()
    Person.objects.filter(pk=vera.pk).update(is_active=False)
    with pytest.raises(WrongState, match="inactive"):
        password_link_create(actor=admin, person_id=vera.pk)


ROLES = ["admin", "operator", "auditor", "reviewer:security"]


@pytest.mark.parametrize("role", ROLES)
def test_a_leaked_password_adds_no_first_factor_to_a_privileged_account(
    person: Callable[..., Person], role: str
) -> None:
    mark = with_password(person("Mark", role))
    thief = Visitor().sign_in(mark)
    shown = thief.get("/account/authenticator")
    assert shown.status_code == 403
    assert "one-time link of a recovery" in shown.content.decode()
    assert "Add an app" not in thief.get("/account").content.decode()
    session = thief.client.session
    secret = new_secret()
    session["assay_totp_secret"] = crypto.encrypt(secret)
    session.save()
    refused = thief.post("/account/authenticator", code=code_of(secret))
    assert refused.status_code == 403
    assert "People →" in refused.content.decode()
    options = thief.get("/account/passkeys/options").json()
    credential = SoftPasskey().create(options)
    refused = thief.post("/account/passkeys", name="laptop", credential=credential)
    assert refused.status_code == 403
    with pytest.raises(NotPermitted) as caught:
        totp_activate(actor=principal_for_person(mark), secret=secret, code=code_of(secret))
    assert caught.value.code == "factor_link_required"
    assert not Authenticator.objects.exists()
    refusals = recorded_all(outcome="denied")
    assert len(refusals) >= 2


def test_no_view_of_the_sign_in_library_is_routed() -> None:
    """Its own pages would add factors and reset passwords past the services."""
    assert addresses()
    modules = {
        each.callback.__module__
        for each in _views(get_resolver().url_patterns)
        if each.callback is not None
    }
    assert not [module for module in modules if module.startswith("allauth")]


def _views(patterns: Any) -> Any:
    for pattern in patterns:
        if hasattr(pattern, "url_patterns"):
            yield from _views(pattern.url_patterns)
        else:
            yield pattern


def test_a_recovery_adds_one_first_factor_for_its_own_person(
    person: Callable[..., Person],
) -> None:
    mark = with_password(person("Mark", "operator"))
    olga = with_password(person("Olga", "operator"))
    other = factor_link(olga)
    secret = new_secret()
    with pytest.raises(NotFound):
        totp_activate(
            actor=principal_for_person(mark),
            secret=secret,
            code=code_of(secret),
            link_id=other.pk,
        )
    other.refresh_from_db()
    assert other.used_at is None

    visitor = Visitor().sign_in(mark)
    open_factor_link(visitor, mark)
    assert visitor.get("/account/authenticator").status_code == 200
    secret = crypto.decrypt(visitor.client.session["assay_totp_secret"])
    assert visitor.post("/account/authenticator", code=code_of(secret)).status_code == 200
    assert factors_of(mark.pk).totp is not None
    # Removed again, it takes another recovery.
    visitor.post("/account/prove", code=code_of(secret, step=1))
    row = Authenticator.objects.get(type="totp")
    assert visitor.post(f"/account/factors/{row.pk}/remove").status_code == 302
    assert visitor.get("/account/authenticator").status_code == 403


def test_a_role_without_a_say_over_others_adds_a_factor_as_before(
    person: Callable[..., Person], settings: Any
) -> None:
    vera = with_password(person("Vera", "lead@finance"))
    visitor = Visitor().sign_in(vera)
    assert visitor.get("/account/authenticator").status_code == 200
    settings.SECOND_FACTOR_ROLES = ["lead"]
    assert visitor.get("/account/authenticator").status_code == 403


def test_an_older_session_of_the_password_alone_adds_nothing_to_an_account_with_a_factor(
    person: Callable[..., Person],
) -> None:
    """A thief who signed in before the factor was added must not add one of their own."""
    mark = with_password(person("Mark", "operator"))
    thief = Visitor().sign_in(mark)
    give_totp(mark)
    row = Authenticator.objects.get(type="totp")
    for path in ("/account/passkeys", "/account/authenticator"):
        answer = thief.post(path, name="x", credential="{}", code="1")
        assert answer["Location"].startswith("/account/confirm"), path
    for path in ("/account/recovery-codes", f"/account/factors/{row.pk}/remove"):
        assert thief.post(path).status_code == 403
        assert thief.post(path, step_up="yes", password=PASSWORD).status_code == 401
    assert Authenticator.objects.filter(pk=row.pk).exists()
    assert thief.post("/account/confirm", password=PASSWORD).status_code == 400


def test_a_mail_server_gets_the_link(
    admin: Principal,
    person: Callable[..., Person],
    postbox: Postbox,
    django_capture_on_commit_callbacks: Any,
) -> None:
    vera = person("Vera", "viewer@finance")
    with django_capture_on_commit_callbacks(execute=True):
        _, address = password_link_create(actor=admin, person_id=vera.pk)
    assert postbox.to == [vera.email]
    assert address in postbox.mails[0].get_payload()


def test_a_mail_server_that_is_down_does_not_keep_the_admin_from_the_link(
    admin: Principal,
    person: Callable[..., Person],
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    vera = person("Vera", "viewer@finance")
    settings.MAIL_SERVER = MailServer("smtp", "127.0.0.1", 9, "assay@example.org")
    with django_capture_on_commit_callbacks(execute=True):
        _, address = password_link_create(actor=admin, person_id=vera.pk)
    assert "was not mailed" in caplog.text
    assert secret_of(address) not in caplog.text
    (event,) = bodies(action="person:invite")
    assert event["data"]["mailed"] is True


def test_the_api_invites_and_resets(person: Callable[..., Person]) -> None:
    api, vera = Api(person("Ada", "admin")), person("Vera", "lead@finance")
    answer = api.post(f"people/{vera.pk}/password-link", {})
    assert answer.status_code == 201, answer.body
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.body["purpose"] == "password"
    assert answer.body["mailed"] is False
    assert link_open(text=answer.body["link"]).person_id == vera.pk
    problem_of(api.post("people", {"email": "x@y.org", "name": "X", "password": PASSWORD}), 400)
    outsider = Api(person("Fay", "lead@media"))
    problem_of(outsider.post(f"people/{vera.pk}/password-link", {}), 404)


def test_the_portal_invites_and_shows_the_link_once(person: Callable[..., Person]) -> None:
    ada = signed_in(Client(), person("Ada", "admin"))
    made = ada.post("/people", {"email": "new@example.org", "name": "New"})
    assert made.status_code == 201
    address = re.search(r"http[^<]+/sign-in/link#\w+", made.content.decode())
    assert address is not None
    assert link_open(text=address[0]).person.email == "new@example.org"
    new = Person.objects.get(email="new@example.org")
    assert "/sign-in/link#" not in ada.get(f"/people/{new.pk}/link").content.decode()
    plain = ada.post("/people", {"email": "sso@example.org", "name": "S", "without_password": "1"})
    assert plain.status_code == 302
    assert RoleAssignment.objects.filter(person=new).count() == 0
