"""Signing in by password and second factor: who comes in, and what stops whom."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from allauth.mfa.models import Authenticator

from assay.accounts import crypto
from governance.keys.models import ApiKey
from governance.people import attempts
from governance.people.models import Person
from governance.people.services import person_deactivate, person_reactivate
from tests.proofs import proven
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.sign_in_support import (
    PASSWORD,
    Visitor,
    code_of,
    give_passkey,
    give_totp,
    open_factor_link,
    prove,
    totp_now,
    with_password,
)
from tests.unit.audit_support import bodies

pytestmark = [pytest.mark.usefixtures("policy", "redis"), pytest.mark.sweep]


@pytest.fixture
def ada(person: Callable[..., Person]) -> Person:
    return with_password(person("Ada", "admin"))


def sign_ins(outcome: str = "allowed") -> list[Any]:
    return bodies(action="person:sign_in", outcome=outcome)


def test_a_password_signs_in_and_leads_where_one_was_going(ada: Person) -> None:
    visitor = Visitor()

    answer = visitor.password(ada, next="/jobs")

    assert (answer.status_code, answer["Location"]) == (302, "/jobs")
    assert visitor.is_in()
    (event,) = sign_ins()
    assert event["data"]["methods"] == ["password"]
    assert event["client_address"] == "192.0.2.7"


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "javascript:x"])
def test_nobody_is_led_to_another_site(ada: Person, target: str) -> None:
    assert Visitor().password(ada, next=target)["Location"] == "/"


def test_a_wrong_password_is_told_in_the_page_and_audited(ada: Person) -> None:
    visitor = Visitor()

    answer = visitor.password(ada, "wrong")

    assert answer.status_code == 401
    assert "is wrong" in answer.content.decode()
    assert not visitor.is_in()
    assert [event["subject_name"] for event in sign_ins("denied")] == [ada.email]


def test_with_a_second_factor_a_password_alone_opens_nothing(ada: Person) -> None:
    give_totp(ada)
    visitor = Visitor()

    answer = visitor.password(ada, next="/jobs")

    assert answer["Location"] == "/sign-in/second-factor"
    assert not visitor.is_in()
    assert visitor.get("/api/v1/me").status_code == 401
    assert sign_ins() == []

    assert visitor.get("/sign-in/second-factor").status_code == 200
    answer = visitor.post("/sign-in/second-factor", code=totp_now(ada))
    assert answer["Location"] == "/jobs"
    assert visitor.is_in()
    (event,) = sign_ins()
    assert event["data"]["methods"] == ["password", "totp"]


def test_the_second_step_needs_the_first(ada: Person) -> None:
    give_totp(ada)
    visitor = Visitor()

    for answer in (
        visitor.get("/sign-in/second-factor"),
        visitor.post("/sign-in/second-factor", code=totp_now(ada)),
        visitor.get("/sign-in/second-factor/passkey"),
    ):
        assert (answer.status_code, answer["Location"]) == (302, "/sign-in")
    assert not visitor.is_in()


def test_a_code_is_taken_once(ada: Person) -> None:
    give_totp(ada)
    code = totp_now(ada)
    first, second = Visitor(), Visitor(address="198.51.100.9")
    first.password(ada)
    second.password(ada)

    assert first.post("/sign-in/second-factor", code=code).status_code == 302
    answer = second.post("/sign-in/second-factor", code=code)

    assert answer.status_code == 401
    assert not second.is_in()
    assert second.post("/sign-in/second-factor", code=totp_now(ada, step=1)).status_code == 302


@pytest.mark.parametrize("code", ["", "000000", "x" * 5000, "\x00", "１２３４５６", "12 34 56 78"])
def test_a_wrong_code_is_refused(ada: Person, code: str) -> None:
    give_totp(ada)
    visitor = Visitor()
    visitor.password(ada)

    answer = visitor.post("/sign-in/second-factor", code=code)

    assert answer.status_code == 401
    assert "code is wrong" in answer.content.decode()
    assert sign_ins("denied")[-1]["data"]["code"] == "wrong_second_factor"


def test_codes_cannot_be_guessed_from_many_addresses(ada: Person) -> None:
    give_totp(ada)
    for number in range(attempts.MAX_CODE_FAILURES):
        visitor = Visitor(address=f"198.51.100.{number + 1}")
        visitor.password(ada)
        assert visitor.post("/sign-in/second-factor", code="000000").status_code == 401

    visitor = Visitor(address="203.0.113.1")
    visitor.password(ada)
    answer = visitor.post("/sign-in/second-factor", code=totp_now(ada))

    assert answer.status_code == 429
    assert not visitor.is_in()


def test_a_recovery_code_stands_in_once(ada: Person) -> None:
    visitor = Visitor().sign_in(ada)
    give_totp(ada)
    prove(visitor, ada)
    page = visitor.post("/account/recovery-codes").content.decode()
    codes = re.findall(r"\b[0-9]{10}\b", page)
    assert len(set(codes)) == 10
    code = codes[0]
    other = Visitor()

    other.password(ada)
    assert other.post("/sign-in/second-factor", code=code).status_code == 302
    assert other.is_in()
    assert sign_ins()[-1]["data"]["methods"] == ["password", "recovery_codes"]

    again = Visitor()
    again.password(ada)
    assert again.post("/sign-in/second-factor", code=code).status_code == 401


def test_secrets_of_second_factors_are_encrypted_where_they_lie(ada: Person) -> None:
    secret = give_totp(ada)

    stored = json.dumps(list(Authenticator.objects.values_list("data", flat=True)))

    assert secret not in stored
    assert "gAAAA" in stored


def test_a_new_pepper_locks_nobody_out(ada: Person, settings: Any) -> None:
    give_totp(ada)
    settings.KEY_PEPPERS = {**settings.KEY_PEPPERS, 2: b"another pepper, of the next year"}
    visitor = Visitor()
    visitor.password(ada)

    assert visitor.post("/sign-in/second-factor", code=totp_now(ada)).status_code == 302


def test_a_lost_pepper_is_said_to_be_lost(ada: Person, settings: Any) -> None:
    give_totp(ada)
    code = totp_now(ada)
    settings.KEY_PEPPERS = {1: b"not the one that the secret was encrypted under"}
    visitor = Visitor()
    visitor.password(ada)

    answer = visitor.post("/sign-in/second-factor", code=code)

    assert answer.status_code == 503
    assert "ASSAY_KEY_PEPPER" in answer.content.decode()


def test_somebody_deactivated_between_the_steps_stays_out(
    ada: Person, person: Callable[..., Person]
) -> None:
    give_totp(ada)
    other = proven(person("Olga", "admin"))
    visitor = Visitor()
    visitor.password(ada)
    person_deactivate(actor=other, person_id=ada.pk, reason="left")

    answer = visitor.post("/sign-in/second-factor", code=totp_now(ada))

    assert answer.status_code == 401
    assert not visitor.is_in()
    assert sign_ins() == []


def test_deactivation_ends_session_and_token_at_once_and_for_good(
    ada: Person, person: Callable[..., Person]
) -> None:
    other = proven(person("Olga", "admin"))
    visitor, api = Visitor().sign_in(ada), Api(ada)
    assert api.get("me").status_code == 200

    person_deactivate(actor=other, person_id=ada.pk, reason="left")

    assert not visitor.is_in()
    assert api.get("me").status_code == 401
    assert Visitor().password(ada).status_code == 401
    person_reactivate(actor=other, person_id=ada.pk, reason="back")
    assert not visitor.is_in()
    assert api.get("me").status_code == 401
    assert Visitor().sign_in(ada)


def test_one_password_tried_on_everybody_locks_the_address_out(
    ada: Person, person: Callable[..., Person]
) -> None:
    sprayer = Visitor(address="198.51.100.66")
    for number in range(attempts.MAX_ADDRESS_FAILURES):
        answer = sprayer.post("/sign-in", email=f"p{number}@example.org", password="Winter2026!!")
        assert answer.status_code == 401

    answer = sprayer.password(ada)

    assert answer.status_code == 429
    assert "network address" in answer.content.decode()
    assert int(answer["Retry-After"]) > 0
    assert Visitor(address="198.51.100.67").sign_in(ada)


def test_one_right_password_buys_an_address_no_new_tries(ada: Person) -> None:
    sprayer = Visitor(address="198.51.100.66")
    for number in range(attempts.MAX_ADDRESS_FAILURES - 1):
        sprayer.post("/sign-in", email=f"p{number}@example.org", password="Winter2026!!")
    assert sprayer.password(ada).status_code == 302
    sprayer.post("/sign-out")
    assert sprayer.post("/sign-in", email="q@example.org", password="x").status_code == 401

    assert sprayer.password(ada).status_code == 429


def test_a_whole_ipv6_network_counts_as_one_address(ada: Person) -> None:
    for number in range(attempts.MAX_ADDRESS_FAILURES):
        visitor = Visitor(address=f"2001:db8::{number + 1:x}")
        visitor.post("/sign-in", email=f"p{number}@example.org", password="x")

    assert Visitor(address="2001:db8::ffff:1").password(ada).status_code == 429
    assert Visitor(address="2001:db8:0:1::1").password(ada).status_code == 302


def test_a_forged_forwarded_address_neither_escapes_nor_frames_anybody(ada: Person) -> None:
    for number in range(attempts.MAX_ADDRESS_FAILURES):
        sprayer = Visitor(address="198.51.100.66")
        sprayer.client.defaults["HTTP_X_FORWARDED_FOR"] = f"203.0.113.{number}"
        sprayer.post("/sign-in", email=f"p{number}@example.org", password="x")

    assert Visitor(address="198.51.100.66").password(ada).status_code == 429
    assert Visitor(address="203.0.113.1").password(ada).status_code == 302


def test_a_proxy_that_forwards_nobody_locks_nobody_out(settings: Any) -> None:
    settings.TRUSTED_PROXIES = ["10.0.0.1"]

    assert attempts.network_of("10.0.0.1") == ""
    assert attempts.network_of("") == ""
    assert attempts.network_of("::ffff:192.0.2.1") == "192.0.2.1"


def test_redis_away_refuses_sign_ins_and_says_why(ada: Person, settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"

    answer = Visitor().password(ada)

    assert answer.status_code == 503
    assert "REDIS_URL" in answer.content.decode()


def test_the_token_endpoint_asks_for_the_second_factor(ada: Person) -> None:
    give_totp(ada)
    body = {"email": ada.email, "password": PASSWORD}

    refused = problem_of(Api().post("auth/token", body), 401, "second_factor_required")
    assert "code" in refused["hint"]
    problem_of(Api().post("auth/token", {**body, "code": "000000"}), 401, "wrong_second_factor")
    answer = Api().post("auth/token", {**body, "code": totp_now(ada)})

    assert answer.status_code == 201
    assert Api(token=answer.body["token"]).get("me").status_code == 200
    assert sign_ins()[-1]["data"]["methods"] == ["password", "totp"]


def test_the_token_endpoint_says_nothing_of_second_factors_before_the_password(ada: Person) -> None:
    give_totp(ada)

    wrong = Api().post("auth/token", {"email": ada.email, "password": "no", "code": totp_now(ada)})

    problem_of(wrong, 401, "not_authenticated")


def test_a_role_may_oblige_its_holders_to_have_a_second_factor(ada: Person, settings: Any) -> None:
    settings.SECOND_FACTOR_ROLES = ["admin"]
    visitor = Visitor()
    visitor.password(ada)

    for path in ("/", "/models", "/people"):
        assert visitor.get(path)["Location"] == "/account/authenticator"
    assert visitor.get("/api/v1/me").status_code == 401
    refused = Api().post("auth/token", {"email": ada.email, "password": PASSWORD})
    problem_of(refused, 403, "second_factor_missing")

    assert visitor.get("/account/authenticator").status_code == 403
    open_factor_link(visitor, ada)
    assert visitor.get("/account/authenticator").status_code == 200
    secret = crypto.decrypt(visitor.client.session["assay_totp_secret"])
    answer = visitor.post("/account/authenticator", code=code_of(secret))
    assert answer.status_code == 200
    assert visitor.is_in()


def test_who_owes_a_second_factor_makes_no_token_and_changes_nothing_else(
    ada: Person, settings: Any
) -> None:
    settings.SECOND_FACTOR_ROLES = ["admin"]
    visitor = Visitor()
    visitor.password(ada)

    for path, fields in (
        ("/account/tokens", {"name": "way round", "days": 7}),
        ("/account/password", {"current": PASSWORD, "new": "another horse, another battery"}),
        ("/account/sessions/end", {"session": "others"}),
        ("/account/recovery-codes", {}),
    ):
        assert visitor.post(path, **fields)["Location"] == "/account/authenticator"
    assert not ApiKey.objects.exists()
    assert visitor.get("/account").status_code == 200
    give_passkey(visitor)
    assert visitor.post("/account/tokens", name="laptop", days=7).status_code == 201


def test_signing_in_anew_ends_what_was_signed_in_before(
    ada: Person, person: Callable[..., Person]
) -> None:
    bert = with_password(person("Bert", "operator"))
    visitor = Visitor().sign_in(ada)

    assert visitor.password(bert).status_code == 302

    assert visitor.get("/api/v1/me").json()["name"] == "Bert"
    from allauth.usersessions.models import UserSession

    assert list(UserSession.objects.values_list("user__name", flat=True)) == ["Bert"]


def test_signing_in_changes_the_session_key(ada: Person) -> None:
    visitor = Visitor()
    give_totp(ada)
    visitor.password(ada)
    before = visitor.client.session.session_key

    visitor.post("/sign-in/second-factor", code=totp_now(ada))

    assert visitor.client.session.session_key != before
