"""Passkeys, with real keys and signatures: the WebAuthn exchange from both ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from allauth.mfa.models import Authenticator

from assay.accounts import passkeys
from governance.people import attempts
from governance.people.models import Person
from tests.unit.assay.sign_in_support import (
    Visitor,
    give_passkey,
    open_factor_link,
    with_password,
)
from tests.unit.assay.soft_passkey import PRESENT, VERIFIED, SoftPasskey, b64
from tests.unit.audit_support import bodies

pytestmark = [pytest.mark.usefixtures("policy", "redis"), pytest.mark.sweep]
EXTENDED = 0x80


@pytest.fixture
def ada(person: Callable[..., Person]) -> Person:
    return with_password(person("Ada", "admin"))


@pytest.fixture
def key(ada: Person) -> SoftPasskey:
    return give_passkey(Visitor().sign_in(ada))


def by_passkey(visitor: Visitor, key: SoftPasskey, **more: Any) -> Any:
    options = visitor.get("/sign-in/passkey").json()
    return visitor.post("/sign-in/passkey", credential=key.get(options), **more)


def methods() -> list[str]:
    found: list[str] = bodies(action="person:sign_in", outcome="allowed")[-1]["data"]["methods"]
    return found


def test_a_passkey_alone_signs_in_without_a_name_or_a_password(key: SoftPasskey) -> None:
    visitor = Visitor()

    answer = by_passkey(visitor, key, next="/jobs")

    assert (answer.status_code, answer["Location"]) == (302, "/jobs")
    assert visitor.is_in()
    assert methods() == ["webauthn"]


def test_adding_one_is_audited_and_gives_recovery_codes_once(ada: Person) -> None:
    visitor = open_factor_link(Visitor().sign_in(ada), ada)
    first, second = SoftPasskey(), SoftPasskey()
    options = visitor.get("/account/passkeys/options").json()

    page = visitor.post("/account/passkeys", name="phone", credential=first.create(options))

    assert "are shown only now" in page.content.decode()
    options = visitor.get("/account/passkeys/options").json()
    answer = visitor.post("/account/passkeys", name="key", credential=second.create(options))
    assert (answer.status_code, answer["Location"]) == (302, "/account")
    added = bodies(action="person:add_factor")
    assert [body["data"]["name"] for body in added] == ["phone", "key"]


def test_it_is_the_second_factor_after_a_password_too(ada: Person, key: SoftPasskey) -> None:
    visitor = Visitor()
    assert visitor.password(ada)["Location"] == "/sign-in/second-factor"
    assert "Use a passkey" in visitor.get("/sign-in/second-factor").content.decode()
    options = visitor.get("/sign-in/second-factor/passkey").json()

    answer = visitor.post("/sign-in/second-factor", credential=key.get(options))

    assert answer.status_code == 302
    assert visitor.is_in()
    assert methods() == ["password", "webauthn"]


def test_one_of_somebody_else_is_no_second_factor(
    ada: Person, key: SoftPasskey, person: Callable[..., Person]
) -> None:
    bert = with_password(person("Bert", "viewer@finance"))
    his = give_passkey(Visitor().sign_in(bert))
    visitor = Visitor()
    visitor.password(ada)
    options = visitor.get("/sign-in/second-factor/passkey").json()

    answer = visitor.post("/sign-in/second-factor", credential=his.get(options))

    assert answer.status_code == 401
    assert not visitor.is_in()


def test_a_challenge_is_answered_once(key: SoftPasskey) -> None:
    visitor = Visitor()
    answer = key.get(visitor.get("/sign-in/passkey").json())
    assert visitor.post("/sign-in/passkey", credential=answer).status_code == 302
    visitor.post("/sign-out")

    assert visitor.post("/sign-in/passkey", credential=answer).status_code == 401
    assert not visitor.is_in()


def test_an_answer_to_another_browsers_challenge_is_refused(key: SoftPasskey) -> None:
    stolen = key.get(Visitor().get("/sign-in/passkey").json())
    visitor = Visitor()
    visitor.get("/sign-in/passkey")

    assert visitor.post("/sign-in/passkey", credential=stolen).status_code == 401
    assert not visitor.is_in()


def test_an_answer_given_to_a_look_alike_site_is_refused(key: SoftPasskey) -> None:
    visitor = Visitor()
    key.origin = "https://testserver.evil.example"

    assert by_passkey(visitor, key).status_code == 401
    assert not visitor.is_in()


def test_a_device_that_did_not_verify_its_user_does_not_sign_in(key: SoftPasskey) -> None:
    visitor = Visitor()
    key.verifies = False

    assert by_passkey(visitor, key).status_code == 401


def test_a_challenge_of_the_second_step_does_not_excuse_the_device_from_verifying_its_user(
    ada: Person, key: SoftPasskey, person: Callable[..., Person]
) -> None:
    """A security key found in a drawer, and a challenge that asks for less: one's own account's,
    or that of the second step."""
    key.verifies = False
    mallory = Visitor().sign_in(with_password(person("Mallory", "viewer@finance")))
    half = Visitor()
    half.password(ada)

    for visitor, path in (
        (mallory, "/account/confirm/passkey"),
        (half, "/sign-in/second-factor/passkey"),
    ):
        answer = key.get(visitor.get(path).json())
        assert visitor.post("/sign-in/passkey", credential=answer).status_code == 401
    assert mallory.get("/api/v1/me").json()["name"] == "Mallory"
    assert not half.is_in()


def test_a_signature_by_another_key_is_refused(key: SoftPasskey) -> None:
    thief = SoftPasskey(id=key.id, user=key.user)

    assert by_passkey(Visitor(), thief).status_code == 401


def test_an_unknown_account_and_an_unknown_key_get_the_same_answer(key: SoftPasskey) -> None:
    unknown = SoftPasskey(user=b64(b"zzzz"))
    wrong = SoftPasskey(user=key.user)

    answers = [by_passkey(Visitor(), stranger) for stranger in (unknown, wrong)]

    assert [answer.status_code for answer in answers] == [401, 401]
    assert all("is not known here" in answer.content.decode() for answer in answers)


def test_an_inactive_account_stays_closed(ada: Person, key: SoftPasskey) -> None:
    Person.objects.filter(pk=ada.pk).update(is_active=False)

    answer = by_passkey(Visitor(), key)

    assert answer.status_code == 401
    assert "inactive" in answer.content.decode()


MALFORMED = (
    "", "{", "[]", "null", '"x"', "{}", '{"response": {}}', '{"id": 1, "response": {"a": 1}}',
    '{"id": "AA", "rawId": "AA", "type": "public-key", "response": {"clientDataJSON": "e30",'
    ' "authenticatorData": "AA", "signature": "AA", "userHandle": "MQ"}}',
    '{"id": "AA", "rawId": "!!", "type": "x", "response": {"userHandle": null}}',
    '{"id": "AA", "rawId": "AA", "type": "public-key", "response": {"clientDataJSON": "W10",'
    ' "authenticatorData": "AA", "signature": 7, "userHandle": "' + "A" * 400 + '"}}',
    "[" * 50_000,
)  # fmt: skip


@pytest.mark.parametrize("number", range(len(MALFORMED)))
def test_what_is_no_passkeys_answer_is_refused_everywhere(ada: Person, number: int) -> None:
    text = MALFORMED[number]
    visitor = Visitor()
    visitor.get("/sign-in/passkey")
    assert visitor.post("/sign-in/passkey", credential=text).status_code in {400, 401}

    visitor = Visitor().sign_in(ada)
    visitor.get("/account/passkeys/options")
    assert visitor.post("/account/passkeys", name="x", credential=text).status_code == 400
    assert visitor.post("/account/passkeys", name="x").status_code == 400
    assert not Authenticator.objects.exists()


@pytest.mark.parametrize("extensions", [b"\x99", b"\x81" * 30_000, b"\xff"])
def test_what_cannot_be_parsed_is_refused_and_no_fault(key: SoftPasskey, extensions: bytes) -> None:
    visitor = Visitor()
    visitor.get("/sign-in/passkey")
    flags = PRESENT | VERIFIED | EXTENDED
    data = sha256(b"testserver").digest() + bytes([flags]) + bytes(4) + extensions
    said = {"type": "webauthn.get", "challenge": "AAAA", "origin": "https://testserver"}
    response = {
        "clientDataJSON": b64(json.dumps(said).encode()),
        "authenticatorData": b64(data),
        "signature": "AA",
        "userHandle": key.user,
    }
    answer = {"id": "AA", "rawId": "AA", "type": "public-key", "response": response}

    assert visitor.post("/sign-in/passkey", credential=json.dumps(answer)).status_code == 401


def test_a_key_of_an_algorithm_that_nobody_knows_signs_nobody_in(ada: Person) -> None:
    visitor, key = Visitor().sign_in(ada), SoftPasskey(algorithm=-999)
    options = visitor.get("/account/passkeys/options").json()
    visitor.post("/account/passkeys", name="odd", credential=key.create(options))

    assert by_passkey(Visitor(), key).status_code == 401


def test_tries_without_a_name_count_for_the_address(key: SoftPasskey) -> None:
    for _ in range(attempts.MAX_ADDRESS_FAILURES):
        visitor = Visitor(address="198.51.100.5")
        visitor.post("/sign-in/passkey", credential="{}")

    assert by_passkey(Visitor(address="198.51.100.5"), key).status_code == 429
    assert by_passkey(Visitor(address="198.51.100.6"), key).status_code == 302


def test_an_account_holds_a_bounded_number(
    ada: Person, key: SoftPasskey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passkeys, "MOST", 1)
    visitor = Visitor()
    by_passkey(visitor, key)
    options = visitor.get("/account/passkeys/options").json()

    answer = visitor.post("/account/passkeys", name="b", credential=SoftPasskey().create(options))

    assert answer.status_code == 409


def test_the_challenge_names_the_site_and_asks_for_verification(ada: Person) -> None:
    visitor = Visitor().sign_in(ada)

    made = visitor.get("/account/passkeys/options").json()["publicKey"]
    used = Visitor().get("/sign-in/passkey").json()["publicKey"]

    assert made["rp"] == {"id": "testserver", "name": "Assay"}
    assert made["authenticatorSelection"]["residentKey"] == "required"
    assert made["authenticatorSelection"]["userVerification"] == "required"
    assert used["userVerification"] == "required"
    assert used["rpId"] == "testserver"
    assert "allowCredentials" not in used or used["allowCredentials"] == []
