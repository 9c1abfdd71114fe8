"""Recoveries of accounts: two parties, a code and a link, and what their use ends and confirms."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from django.core.management import CommandError, call_command
from django.db import IntegrityError, transaction
from django.test import Client
from django.utils import timezone

from assay.accounts import crypto
from assay.accounts.factors import factors_of, factors_reset
from governance.errors import (
    DomainError,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    Unavailable,
    WrongState,
)
from governance.keys.models import ApiKey
from governance.keys.services import access_token_create
from governance.people.credentials import sign_in_admins_of
from governance.people.links import password_link_create
from governance.people.models import OneTimeLink, Person, RoleAssignment, RoleRequest
from governance.people.recoveries.approving import recovery_approve, recovery_on_server
from governance.people.recoveries.models import AccountNotice, AccountRecovery
from governance.people.recoveries.notices import account_notices_send_due
from governance.people.recoveries.opening import one_time_link_open
from governance.people.recoveries.services import (
    recoveries_expire_due,
    recovery_reject,
    recovery_request,
)
from governance.people.role_requests import role_request_approve
from governance.people.roles import role_grant
from governance.people.services import person_deactivate
from governance.principals import Principal
from governance.reviews.policies.shipping import review_policies_bootstrap
from governance.reviews.reminders.channels import MailServer
from tests.proofs import proven, signed_in
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.sign_in_support import Visitor, code_of, give_totp, with_password
from tests.unit.audit_support import bodies, recorded_all
from tests.unit.governance.test_review_reminders import Postbox, postbox

__all__ = ["postbox"]

pytestmark = [pytest.mark.usefixtures("policy", "redis"), pytest.mark.sweep]
NEW = "another horse and another battery"
WHY = "They lost their phone."


@pytest.fixture
def people(person: Callable[..., Person]) -> dict[str, Person]:
    """Three administrators with apps, and a reviewer with one."""
    made = {
        "ada": person("Ada", "admin"),
        "bea": person("Bea", "admin"),
        "cleo": person("Cleo", "admin"),
        "rex": person("Rex", "reviewer:security"),
    }
    for each in made.values():
        give_totp(with_password(each))
    return made


def requested(actor: Principal, person: Person, purpose: str = "password") -> tuple[Any, str]:
    return recovery_request(actor=actor, person_id=person.pk, purpose=purpose, reason=WHY)


def approved(people: dict[str, Person], person: Person, purpose: str = "password") -> Any:
    """A recovery that Ada requested and Bea approved, with its link and its code."""
    recovery, code = requested(proven(people["ada"]), person, purpose)
    recovery, address = recovery_approve(actor=proven(people["bea"]), recovery_id=recovery.pk)
    return recovery, address, code


def set_password(visitor: Visitor, address: str, code: str) -> Any:
    """The visitor opens the link with its code, and sets a password and a new app."""
    answer = visitor.post("/sign-in/link", link=address, code=code)
    assert answer.status_code == 302, answer.content.decode()[:3000]
    visitor.get("/sign-in/link/password")
    secret = crypto.decrypt(visitor.client.session["assay_totp_secret"])
    return visitor.post("/sign-in/link/password", password=NEW, again=NEW, code=code_of(secret))


def test_two_administrators_recover_an_account(people: dict[str, Person]) -> None:
    rex = people["rex"]
    thief = Visitor().proven(rex)
    access_token_create(person=rex, name="on the lost phone")
    recovery, address, code = approved(people, rex)
    # Nothing has changed yet: whoever owns the account can still object.
    assert factors_of(rex.pk).totp is not None
    assert thief.is_in()

    assert "is set" in set_password(Visitor(), address, code).content.decode()
    rex.refresh_from_db()
    recovery.refresh_from_db()
    assert (recovery.state, rex.check_password(NEW), rex.unconfirmed_at) == ("opened", True, None)
    assert rex.empowered_at is not None
    assert rex.empowered_at > recovery.opened_at
    assert Authenticator.objects.filter(user=rex, type="totp").count() == 1
    assert not thief.is_in()
    assert not ApiKey.objects.filter(person=rex, revoked_at=None).exists()
    told = [event.action for event in recorded_all(outcome="allowed") if "recovery" in event.action]
    assert told == ["recovery:request", "recovery:approve", "recovery:open"]
    (opened,) = bodies(action="recovery:open")
    assert opened["data"]["requested_by"] == people["ada"].pk
    assert opened["data"]["approved_by"] == people["bea"].pk


def test_neither_the_link_nor_the_code_alone_opens_anything(people: dict[str, Person]) -> None:
    """So neither the requester nor the approver becomes the account."""
    rex = people["rex"]
    _, address, code = approved(people, rex)
    for text, given, status in (
        (address, "", 400),
        (address, "AAAAA-AAAAA", 401),
        (address, code[:-1], 401),
        (f"#{'0' * 12}_{'0' * 43}", code, 404),
    ):
        answer = Visitor().post("/sign-in/link", link=text, code=given)
        assert answer.status_code == status, given
    assert factors_of(rex.pk).totp is not None
    page = Visitor().post("/sign-in/link", link=address).content.decode()
    assert "Code of the recovery" in page
    # Each such link asks for a second factor first, which is not an error of the person.
    assert 'role="alert"' not in page
    assert address.partition("#")[2] in page
    assert Visitor().post("/sign-in/link", link=address, code=code.lower()).status_code == 302


def test_wrong_codes_lock_the_address(people: dict[str, Person]) -> None:
    _, address, _ = approved(people, people["rex"])
    statuses = {
        Visitor().post("/sign-in/link", link=address, code=f"WRONG{n:05}").status_code
        for n in range(52)
    }
    assert statuses == {401, 429}


def test_who_may_not(people: dict[str, Person], actor: Callable[..., Principal]) -> None:
    ada, bea, rex = (people[name] for name in ("ada", "bea", "rex"))
    for refused in (proven(rex), actor("Olga", "operator"), actor("Asha", "auditor")):
        with pytest.raises(NotPermitted):
            requested(refused, bea)
    with pytest.raises(NotFound):
        requested(actor("Lena", "lead@finance"), bea)
    with pytest.raises(NotPermitted, match="their own account"):
        requested(proven(ada), ada)
    recovery, _ = requested(proven(ada), bea)
    with pytest.raises(WrongState, match="under way"):
        requested(proven(people["cleo"]), bea)
    for refused, why in ((ada, "requested recovery"), (bea, "their own account"), (rex, "may not")):
        with pytest.raises(NotPermitted, match=why):
            recovery_approve(actor=proven(refused), recovery_id=recovery.pk)
    assert not OneTimeLink.objects.filter(person=bea).exists()
    for bad in ({"reason": ""}, {"purpose": "admin"}):
        given = {"purpose": "password", "reason": WHY, **bad}
        with pytest.raises(InvalidInput):
            recovery_request(actor=proven(ada), person_id=rex.pk, **given)


@pytest.mark.parametrize("end", ["role", "account"])
def test_a_requester_who_has_lost_the_right_counts_no_more(
    people: dict[str, Person], end: str
) -> None:
    recovery, _ = requested(proven(people["ada"]), people["rex"])
    if end == "role":
        people["ada"].role_assignments.all().delete()
    else:
        person_deactivate(
            actor=proven(people["cleo"]), person_id=people["ada"].pk, reason="Suspected."
        )
    with pytest.raises(WrongState, match="may no longer recover"):
        recovery_approve(actor=proven(people["bea"]), recovery_id=recovery.pk)


def test_the_database_refuses_one_party(people: dict[str, Person]) -> None:
    ada, rex = people["ada"], people["rex"]
    recovery, _ = requested(proven(ada), rex)
    rows, now = AccountRecovery.objects.filter(pk=recovery.pk), timezone.now()
    one = {"state": "approved", "effective_at": now}
    for change in (
        {**one, "approved_by": ada},
        {**one, "approved_by": rex},
        {**one, "approved_by": None},
        {**one, "approved_by": people["bea"], "requested_by": None},
        {"requested_by": rex},
        {"code_hmac": b""},
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            rows.update(**change)


def test_the_owner_and_every_administrator_can_reject_it(people: dict[str, Person]) -> None:
    rex = people["rex"]
    for who in (rex, people["cleo"], people["ada"]):
        recovery, address, code = approved(people, rex)
        recovery_reject(actor=proven(who), recovery_id=recovery.pk, reason="I have my phone.")
        assert Visitor().post("/sign-in/link", link=address, code=code).status_code == 404
    recovery, _, _ = approved(people, rex)
    people["bea"].role_assignments.all().delete()
    stranger = proven(people["bea"])
    with pytest.raises(DomainError):
        recovery_reject(actor=stranger, recovery_id=recovery.pk, reason="No.")


def test_rejecting_needs_no_second_factor(people: dict[str, Person]) -> None:
    recovery, _, _ = approved(people, people["rex"])
    page = Visitor().proven(people["rex"])
    assert "A recovery of your account is approved" in page.get("/").content.decode()
    # Hours later, in the same session.
    signed_in(page.client, people["rex"], ago=timedelta(hours=5))
    long = page.post(f"/people/recoveries/{recovery.pk}", do="reject", reason="Not me." * 50)
    assert long.status_code == 400
    assert "Not me." * 50 in long.content.decode()
    answer = page.post(f"/people/recoveries/{recovery.pk}", do="reject", reason="Not me.")
    assert answer.status_code == 302
    recovery.refresh_from_db()
    assert (recovery.state, recovery.ended_by) == ("rejected", people["rex"])


def test_it_ends_with_its_time_and_with_the_account(people: dict[str, Person]) -> None:
    recovery, _ = requested(proven(people["ada"]), people["rex"])
    AccountRecovery.objects.update(expires_at=timezone.now())
    with pytest.raises(WrongState, match="expired"):
        recovery_approve(actor=proven(people["bea"]), recovery_id=recovery.pk)
    assert recoveries_expire_due() == 1
    assert recoveries_expire_due() == 0
    assert [event.actor_id for event in recorded_all(action="recovery:expire")] == ["controller"]
    # A second one may follow at once, also where the controller has not looked yet.
    requested(proven(people["ada"]), people["rex"])
    AccountRecovery.objects.update(expires_at=timezone.now())
    recovery, address, code = approved(people, people["rex"])
    person_deactivate(actor=proven(people["cleo"]), person_id=people["rex"].pk, reason="Left.")
    recovery.refresh_from_db()
    assert recovery.state == "rejected"
    assert Visitor().post("/sign-in/link", link=address, code=code).status_code == 404


def test_a_link_that_one_administrator_made_adds_no_first_factor(
    people: dict[str, Person], person: Callable[..., Person]
) -> None:
    """Not when the role came after the link, and not when the factor went."""
    ada, new = people["ada"], person("New", "viewer@finance")
    _, address = password_link_create(actor=proven(ada), person_id=new.pk)
    visitor = Visitor()
    assert visitor.post("/sign-in/link", link=address).status_code == 302
    RoleAssignment.objects.create(person=new, role="operator")
    visitor.get("/sign-in/link/password")
    secret = crypto.decrypt(visitor.client.session["assay_totp_secret"])
    fields = {"password": NEW, "again": NEW, "code": code_of(secret)}
    refused = visitor.post("/sign-in/link/password", **fields)
    assert refused.status_code == 403
    assert "takes two parties" in refused.content.decode()
    assert not Authenticator.objects.filter(user=new).exists()
    for make in (
        lambda: password_link_create(actor=proven(ada), person_id=new.pk),
        lambda: factors_reset(actor=proven(ada), person_id=people["rex"].pk, reason=WHY),
    ):
        with pytest.raises(NotPermitted) as caught:
            make()
        assert caught.value.code == "recovery_needed"


def test_a_link_sets_the_password_of_an_account_with_a_factor_only_with_a_code_of_it(
    people: dict[str, Person],
) -> None:
    rex = people["rex"]
    secret = crypto.decrypt(Authenticator.objects.get(user=rex, type="totp").data["secret"])
    _, address = password_link_create(actor=proven(people["ada"]), person_id=rex.pk)
    visitor = Visitor()
    visitor.post("/sign-in/link", link=address)
    assert "a recovery code" in visitor.get("/sign-in/link/password").content.decode()
    for code in ("", "000000"):
        fields = {"password": NEW, "again": NEW, "code": code}
        assert visitor.post("/sign-in/link/password", **fields).status_code == 401
    rex.refresh_from_db()
    assert not rex.check_password(NEW)
    fields = {"password": NEW, "again": NEW, "code": code_of(secret, step=1)}
    assert visitor.post("/sign-in/link/password", **fields).status_code == 200
    rex.refresh_from_db()
    assert rex.check_password(NEW)
    assert rex.unconfirmed_at is None


def test_an_account_that_one_administrator_set_up_decides_nothing(
    people: dict[str, Person], person: Callable[..., Person]
) -> None:
    """Set up first, and given the role afterward: its factor may be that administrator's."""
    ada, bea, new = people["ada"], people["bea"], person("New")
    _, address = password_link_create(actor=proven(ada), person_id=new.pk)
    visitor = Visitor()
    visitor.post("/sign-in/link", link=address)
    assert visitor.post("/sign-in/link/password", password=NEW, again=NEW).status_code == 200
    give_totp(new)
    new.refresh_from_db()
    assert sign_in_admins_of({new.pk}) == {ada.pk}
    made = role_grant(actor=proven(bea), person=new, role="admin")
    assert isinstance(made, RoleRequest)
    role_request_approve(actor=proven(people["cleo"]), request_id=made.pk)
    new.refresh_from_db()
    with pytest.raises(NotPermitted) as caught:
        requested(proven(new), people["rex"])
    assert caught.value.code == "sign_in_unconfirmed"

    _, address, code = approved({"ada": bea, "bea": people["cleo"]}, new)
    set_password(Visitor(), address, code)
    new.refresh_from_db()
    assert sign_in_admins_of({new.pk}) == set()
    requested(proven(new), people["rex"])


def test_two_administrators_who_name_a_person_confirm_a_factor_of_their_own(
    people: dict[str, Person], person: Callable[..., Person]
) -> None:
    new = with_password(person("New", "developer@finance"))
    visitor = Visitor().sign_in(new)
    visitor.get("/account/authenticator")
    secret = crypto.decrypt(visitor.client.session["assay_totp_secret"])
    assert visitor.post("/account/authenticator", code=code_of(secret)).status_code == 200
    new.refresh_from_db()
    assert new.unconfirmed_at is not None
    # A group alone names nobody: what it gives decides nothing.
    RoleAssignment.objects.create(
        person=new, role="reviewer", specialty="privacy", source="scim", group="g"
    )
    assert proven(new).unconfirmed
    assert "Your account is not confirmed" in visitor.get("/account").content.decode()
    ada = signed_in(Client(), people["ada"])
    assert "Unconfirmed" in ada.get(f"/people/{new.pk}/sign-in").content.decode()
    made = role_grant(actor=proven(people["ada"]), person=new, role="admin")
    page = signed_in(Client(), people["bea"]).get("/people/role-requests").content.decode()
    assert "in person before you approve" in page
    bea = Visitor().proven(people["bea"])
    long = bea.post(f"/people/role-requests/{made.pk}", do="reject", reason="Not yet." * 50)
    assert long.status_code == 400
    assert "Not yet." * 50 in long.content.decode()
    role_request_approve(actor=proven(people["bea"]), request_id=made.pk)
    new.refresh_from_db()
    assert not proven(new).unconfirmed
    assert "Your account is not confirmed" not in visitor.get("/account").content.decode()


@pytest.fixture
def two(person: Callable[..., Person]) -> tuple[Person, Person]:
    """Two administrators, and nobody else."""
    pair = person("Ada", "admin"), person("Bea", "admin")
    for each in pair:
        give_totp(with_password(each))
    return pair


def run(*words: str) -> str:
    out = StringIO()
    call_command("recover_account", *words, stdout=out)
    return out.getvalue()


def link_in(text: str) -> str:
    found = re.search(r"http\S+/sign-in/link#\w+", text)
    assert found is not None, text
    return found[0]


def test_of_two_administrators_the_server_approves_after_the_waiting_time(
    two: tuple[Person, Person],
) -> None:
    ada, bea = two
    review_policies_bootstrap()
    with pytest.raises(CommandError, match="No administrator has requested"):
        run(bea.email)
    recovery, code = requested(proven(ada), bea)
    told = run(bea.email)
    assert "They also need the code that Ada has" in told
    recovery.refresh_from_db()
    assert recovery.on_server
    assert recovery.effective_at - recovery.approved_at == timedelta(hours=24)
    early = Visitor().post("/sign-in/link", link=link_in(told), code=code)
    assert (early.status_code, "waits until" in early.content.decode()) == (409, True)
    assert factors_of(bea.pk).totp is not None
    # Announced on every page of every administrator.
    page = signed_in(Client(), ada).get("/").content.decode()
    assert "approved a recovery of the account of Bea" in page

    AccountRecovery.objects.update(effective_at=timezone.now())
    assert set_password(Visitor(), link_in(told), code).status_code == 200
    bea.refresh_from_db()
    assert bea.check_password(NEW)
    (event,) = bodies(action="recovery:approve")
    assert event["actor_id"] == "bootstrap"
    assert event["data"]["on_server"] is True


def test_the_server_does_nothing_where_two_administrators_can(people: dict[str, Person]) -> None:
    requested(proven(people["ada"]), people["rex"])
    with pytest.raises(CommandError, match="administrators can recover"):
        run(people["rex"].email)
    with pytest.raises(CommandError, match="no such person"):
        run("nobody@example.org")


def test_an_administrator_who_cannot_act_does_not_count(
    people: dict[str, Person], person: Callable[..., Person]
) -> None:
    """Without a factor, unconfirmed or inactive: else a lost phone would lock everybody out."""
    bea, cleo = people["bea"], people["cleo"]
    Authenticator.objects.filter(user=cleo).delete()
    Person.objects.filter(pk=bea.pk).update(unconfirmed_at=timezone.now())
    with pytest.raises(CommandError, match="No administrator has requested"):
        run(people["rex"].email)
    Authenticator.objects.all().delete()
    assert "is approved" in run(people["ada"].email)


def test_the_last_administrator_is_let_in_by_the_server_alone_and_late(
    person: Callable[..., Person],
) -> None:
    ada = with_password(person("Ada", "admin"))
    give_totp(ada)
    told = run(ada.email, "--reason", "The phone is gone.")
    recovery = AccountRecovery.objects.get()
    assert recovery.effective_at - recovery.approved_at == timedelta(hours=24)
    assert bytes(recovery.code_hmac) == b""
    # The link was lost: another one replaces it.
    again = run(str(ada.pk))
    assert Visitor().post("/sign-in/link", link=link_in(told)).status_code == 404
    AccountRecovery.objects.update(effective_at=timezone.now())
    assert set_password(Visitor(), link_in(again), "").status_code == 200


def test_from_the_first_start_to_three_administrators(policy: Any) -> None:
    """With no fixture: every step is one that a new installation takes."""
    out = StringIO()
    call_command("bootstrap", admin="ada@example.org", name="Ada", stdout=out)
    assert set_password(Visitor(), link_in(out.getvalue()), "").status_code == 200
    ada = Person.objects.get(name="Ada")
    assert not proven(ada).unconfirmed

    api = Api(ada)
    bea = api.post("people", {"email": "bea@example.org", "name": "Bea"}).body
    assert api.post(f"people/{bea['id']}/roles", {"role": "admin"}).status_code == 201
    # Alone, Ada cannot set Bea's account up.
    refused = api.post(f"people/{bea['id']}/password-link", {})
    problem_of(refused, 403, "recovery_needed")
    made = api.post(f"people/{bea['id']}/recoveries", {"reason": "Second administrator."}).body
    told = run("bea@example.org")
    assert "works from" not in told
    assert set_password(Visitor(), link_in(told), made["code"]).status_code == 200

    other = Api(Person.objects.get(name="Bea"))
    cleo = api.post("people", {"email": "cleo@example.org", "name": "Cleo"}).body
    asked = api.post(f"people/{cleo['id']}/roles", {"role": "admin"})
    assert asked.status_code == 202
    path = f"role-requests/{asked.body['id']}/approve"
    assert other.post(path, {}).status_code == 200
    made = api.post(f"people/{cleo['id']}/recoveries", {"reason": "Third administrator."}).body
    path = f"recoveries/{made['recovery']['id']}/approve"
    problem_of(api.post(path, {}), 403, "separation_of_duties")
    link = other.post(path, {}).body["link"]
    assert set_password(Visitor(), link, made["code"]).status_code == 200
    # Three of them now: the server recovers none any more.
    requested(proven(ada), Person.objects.get(name="Bea"))
    with pytest.raises(CommandError, match="2 administrators can recover"):
        run("bea@example.org")


def test_a_second_init_gives_no_second_administrator(
    two: tuple[Person, Person], person: Callable[..., Person]
) -> None:
    for email, name in (("mallory@example.org", "Mallory"), ("bea@example.org", "Bea")):
        out = StringIO()
        if name == "Mallory":
            with pytest.raises(CommandError, match="already an administrator"):
                call_command("bootstrap", admin=email, name=name, stdout=out)
        else:
            call_command("bootstrap", admin=email, name=name, stdout=out)
        assert "/sign-in/link#" not in out.getvalue()
    # Neither for an administrator who was never set up, beside one who can act.
    cleo = person("Cleo", "admin")
    with pytest.raises(CommandError, match="administrators can recover"):
        call_command("bootstrap", admin=cleo.email, name="Cleo", stdout=StringIO())


def test_mail_takes_the_link_to_the_account_and_tells_every_administrator(
    people: dict[str, Person],
    postbox: Postbox,
    django_capture_on_commit_callbacks: Any,
) -> None:
    rex = people["rex"]
    with django_capture_on_commit_callbacks(execute=True):
        recovery, address, code = approved(people, rex)
    assert address == ""
    assert postbox.to == [rex.email]
    text = postbox.mails[0].get_payload()
    assert "/sign-in/link#" in text
    assert "ask Ada for it" in text
    assert code not in text
    sent = account_notices_send_due()
    names = {"ada", "bea", "cleo", "rex"}
    assert sent == AccountNotice.objects.count() == 2 * len(names)
    assert set(postbox.to[1:]) == {people[name].email for name in names}
    assert all("/sign-in/link#" not in mail.get_payload() for mail in postbox.mails[1:])
    recovery.refresh_from_db()
    page = signed_in(Client(), people["bea"]).get("/people/recoveries").content.decode()
    assert "/sign-in/link#" not in page


def test_nothing_is_approved_while_the_mail_server_is_down(
    people: dict[str, Person], settings: Any
) -> None:
    settings.MAIL_SERVER = MailServer("smtp", "127.0.0.1", 9, "assay@example.org")
    recovery, _ = requested(proven(people["ada"]), people["rex"])
    with pytest.raises(Unavailable, match="could not be mailed"):
        recovery_approve(actor=proven(people["bea"]), recovery_id=recovery.pk)
    recovery.refresh_from_db()
    assert recovery.state == "pending"
    assert not OneTimeLink.objects.exists()


def test_the_portal_requests_approves_and_shows_each_half_once(people: dict[str, Person]) -> None:
    rex = people["rex"]
    ada, bea = signed_in(Client(), people["ada"]), signed_in(Client(), people["bea"])
    assert "Recover the account" in ada.get(f"/people/{rex.pk}/sign-in").content.decode()
    form = {"recovery-purpose": "password", "recovery-reason": WHY}
    made = ada.post(f"/people/{rex.pk}/recover", form)
    assert made.status_code == 201
    code = re.search(r"[A-Z2-9]{5}-[A-Z2-9]{5}", made.content.decode())
    assert code is not None
    recovery = AccountRecovery.objects.get()
    for client in (ada, bea):
        page = client.get("/people/recoveries").content.decode()
        assert WHY in page
        assert code[0] not in page
    assert "Approve the recovery of the account of Rex" in bea.get("/tasks").content.decode()
    assert ada.post(f"/people/recoveries/{recovery.pk}", {"do": "approve"}).status_code == 403
    shown = bea.post(f"/people/recoveries/{recovery.pk}", {"do": "approve"})
    assert shown.status_code == 201
    assert all("no-store" in page["Cache-Control"] for page in (made, shown))
    text = shown.content.decode()
    assert "code that Ada has" in text
    assert code[0] not in text
    assert set_password(Visitor(), link_in(text), code[0]).status_code == 200


def test_a_recovery_for_a_factor_alone_keeps_the_password(people: dict[str, Person]) -> None:
    rex = people["rex"]
    _, address, code = approved(people, rex, "factor")
    visitor = Visitor()
    assert visitor.post("/sign-in/link", link=address, code=code)["Location"] == (
        "/account/authenticator"
    )
    assert visitor.password(rex).status_code == 302
    visitor.get("/account/authenticator")
    secret = crypto.decrypt(visitor.client.session["assay_totp_secret"])
    assert visitor.post("/account/authenticator", code=code_of(secret)).status_code == 200
    rex.refresh_from_db()
    assert rex.unconfirmed_at is None
    assert OneTimeLink.objects.get().used_at is not None


def test_an_opened_link_is_refused_before_the_recovery_took_effect(
    people: dict[str, Person],
) -> None:
    """The service holds the rule: no surface may claim a recovery's link that it did not open."""
    from assay.accounts.links import password_set

    approved(people, people["rex"])
    link = OneTimeLink.objects.get()
    with pytest.raises(NotFound):
        password_set(link_id=link.pk, password=NEW, code="000000")


def test_secrets_of_a_recovery_stand_nowhere(people: dict[str, Person]) -> None:
    from tests.unit.dump import found

    _, address, code = approved(people, people["rex"])
    secret = address.partition("#")[2].partition("_")[2]
    assert found((secret, code, code.replace("-", ""))) == []


def test_the_server_names_who_it_is_in_a_refusal(two: tuple[Person, Person]) -> None:
    with pytest.raises(NotFound):
        recovery_on_server(person_id=10**9)
    Person.objects.filter(pk=two[1].pk).update(is_active=False)
    with pytest.raises(WrongState, match="inactive"):
        recovery_on_server(person_id=two[1].pk)
    with pytest.raises(NotAuthenticated):
        one_time_link_open_with_wrong_code(two)


def one_time_link_open_with_wrong_code(two: tuple[Person, Person]) -> None:
    ada, bea = two
    Person.objects.filter(pk=bea.pk).update(is_active=True)
    requested(proven(ada), bea)
    _, address = recovery_on_server(person_id=bea.pk)
    one_time_link_open(text=address, code="AAAAAAAAAA")
