"""A key counts in one place, `Authorization: Bearer`, whole and unchanged; and it is never repeated
where somebody else could read it.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.test import Client
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.keys.models import ApiKey
from governance.keys.services import access_token_create
from governance.keys.tokens import format_token, parse_token
from governance.people.models import Person
from tests.abuse.company import caller, key_token, person_of, token_of
from tests.abuse.surface import said
from tests.unit.assay.gateway_support import Stage, stage
from tests.unit.assay.portal_data import PASSWORD, Company

__all__ = ["stage"]

CHAT = "/v1/chat/completions"
GOOD = {"model": "writer", "messages": [{"role": "user", "content": "Hi"}]}
NAMES = ("api_key", "key", "token", "access_token", "authorization", "Authorization")
# Headers in which other products look for a key.
HEADERS = (
    "x-api-key", "api-key", "x-auth-token", "x-assay-key", "authentication", "openai-api-key",
    "x-forwarded-authorization", "proxy-authorization", "x-goog-api-key",
)  # fmt: skip


def status(client: Client, **options: Any) -> int:
    return int(client.get("/api/v1/me", **options).status_code)


@pytest.fixture
def token(company: Company) -> str:
    return token_of(company, "an admin")


@pytest.mark.parametrize("name", NAMES)
def test_a_key_in_the_query_is_no_key(token: str, name: str) -> None:
    """It would stand in every log on the way."""
    assert status(Client(), query_params={name: token}) == 401
    assert status(Client(), query_params={name: f"Bearer {token}"}) == 401


@pytest.mark.parametrize("name", HEADERS)
def test_a_key_in_another_header_is_no_key(token: str, name: str) -> None:
    assert status(Client(headers={name: token})) == 401
    assert status(Client(headers={name: f"Bearer {token}"})) == 401


@pytest.mark.parametrize("name", ["authorization", "token", "sessionid", "api_key"])
def test_a_key_in_a_cookie_is_no_key(token: str, name: str) -> None:
    client = Client()
    client.cookies[name] = token
    assert status(client) == 401


@pytest.mark.parametrize(
    "form",
    [
        "{token}",
        "Token {token}",
        "Basic {token}",
        "Digest {token}",
        "Bearer\t{token}",
        "Bearer {token} {token}",
        "Bearer {token},{token}",
        "Bearer Bearer {token}",
        "Bearer {token}x",
        "Bearer {token}\x00",
        'Bearer "{token}"',
        "Bearer assay_",
        "Bearer",
        "Bearer " + "a" * 10_000,
        "Bearer \N{LATIN SMALL LETTER E WITH ACUTE}",
    ],
)
def test_a_key_that_is_not_presented_as_it_should_be_is_no_key(token: str, form: str) -> None:
    response = Client(headers={"authorization": form.format(token=token)}).get("/api/v1/me")
    assert response.status_code == 401
    assert token not in said(response)


def test_a_key_with_one_character_changed_is_no_key(token: str) -> None:
    """Anywhere in it: the id, the secret, the checksum."""
    for place in range(len("assay_"), len(token)):
        other = "a" if token[place] != "a" else "b"
        forged = token[:place] + other + token[place + 1 :]
        assert status(Client(headers={"authorization": f"Bearer {forged}"})) == 401, place


def test_the_secret_of_one_key_does_not_open_another(company: Company) -> None:
    mine, theirs = key_token(company, "finance"), key_token(company, "engineering")
    forged = format_token(parse_token(theirs).public_id, parse_token(mine).secret)
    assert status(Client(headers={"authorization": f"Bearer {forged}"})) == 401


def test_a_dead_key_opens_nothing(company: Company) -> None:
    now = timezone.now()
    long_ago = {"created_at": now - timedelta(days=9), "expires_at": now - timedelta(seconds=1)}
    for change in ({"revoked_at": now}, long_ago):
        token = key_token(company, "engineering")
        bearer = Client(headers={"authorization": f"Bearer {token}"})
        assert status(bearer) == 200
        ApiKey.objects.filter(pk=ApiKey.objects.latest("pk").pk).update(**change)
        assert status(bearer) == 401


def test_the_token_of_somebody_who_left_opens_nothing(company: Company) -> None:
    client = caller(company, "an admin")
    Person.objects.filter(email="an-admin@assay.example").update(is_active=False)
    assert status(client) == 401


def test_the_session_of_somebody_who_left_opens_nothing(company: Company) -> None:
    person = person_of(company, "an admin")
    client = Client()
    client.force_login(person)
    assert client.get("/models").status_code == 200
    Person.objects.filter(pk=person.pk).update(is_active=False)
    assert client.get("/models").status_code == 302
    assert status(client) == 401


def test_half_a_sign_in_opens_nothing(company: Company) -> None:
    """Enzo has a second factor; whoever has his password alone has neither session nor token."""
    company.enzo.set_password(PASSWORD)
    company.enzo.save()
    credentials = {"email": company.enzo.email, "password": PASSWORD}
    client = Client(raise_request_exception=False)
    client.post("/sign-in", credentials)
    assert status(client) == 401
    for path in ("/", "/models", "/keys", "/account", "/account/passkeys"):
        assert client.get(path).status_code == 302, path
    for code in ({}, {"code": ""}, {"code": "000000"}, {"code": "' OR 1=1"}, {"code": "0" * 60}):
        body = {**credentials, **code}
        answer = client.post("/api/v1/auth/token", body, content_type="application/json")
        assert answer.status_code in {400, 401, 403}, code
        assert b'"token"' not in answer.content


def test_a_token_for_one_thing_does_no_other(company: Company) -> None:
    """An admin's token with the scope of looking at models cannot make an account or a key."""
    admin = person_of(company, "an admin")
    _, token = access_token_create(person=admin, name="narrow", scopes=["model:view"])
    client = Client(headers={"authorization": f"Bearer {token}"})
    assert client.get("/api/v1/models").status_code == 200
    for path, body in (
        ("people", {"email": "m@assay.example", "name": "Mallory"}),
        ("departments", {"slug": "mine", "name": "Mine"}),
        ("keys", {"department": "engineering", "name": "wide"}),
    ):
        response = client.post(f"/api/v1/{path}", body, content_type="application/json")
        assert response.status_code in {403, 404}, path


def test_no_refusal_and_no_record_repeats_the_key(
    company: Company, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = token_of(company, "a viewer of finance")
    secret = token.split("_")[2]
    bearer = Client(headers={"authorization": f"Bearer {token}"}, raise_request_exception=False)
    broken = Client(headers={"authorization": f"Bearer {token}0"}, raise_request_exception=False)
    told = [
        said(client.post(path, {"name": token}, content_type="application/json"))
        for client in (bearer, broken)
        for path in ("/api/v1/departments", "/api/v1/keys/1/revoke", "/api/v1/nowhere")
    ]
    recorded = b"".join(
        bytes(row) for row in AuditEvent.objects.values_list("canonical", flat=True)
    )
    # An answer may repeat the name that its caller sent, but all operators read the log.
    assert secret not in caplog.text
    assert secret.encode() not in recorded
    assert all("secret_hmac" not in each for each in told)


def test_the_gateway_takes_a_key_in_two_headers_only(stage: Stage) -> None:
    stage.deployment()
    token = stage.key()
    assert stage.post(CHAT, token, json=GOOD).status_code == 200
    ways: list[dict[str, Any]] = [
        *({"params": {name: token}} for name in NAMES),
        # Anthropic's clients send the key as x-api-key.
        *({"headers": {name: token}} for name in HEADERS if name != "x-api-key"),
        *({"headers": {"authorization": f"{scheme} {token}"}} for scheme in ("Basic", "Token")),
        {"cookies": {"authorization": f"Bearer {token}"}},
        {"json": {**GOOD, "api_key": token}},
    ]
    for way in ways:
        response = httpx.post(f"{stage.url}{CHAT}", **{"json": GOOD, **way})
        assert response.status_code == 401, way
        assert token not in response.text
    assert len(stage.responders[0].requests) == 1


def test_two_keys_in_one_request_do_not_add_up(stage: Stage) -> None:
    """Of two headers one counts, on both sides of a proxy the same: the first, or neither."""
    stage.deployment()
    good, junk = stage.key(), "assay_0000000000000000_" + "A" * 43 + "_00000000"
    twice = [("authorization", f"Bearer {junk}"), ("authorization", f"Bearer {good}")]
    response = httpx.post(f"{stage.url}{CHAT}", headers=twice, json=GOOD)
    assert response.status_code == 401
    management = httpx.get(f"{stage.url}/api/v1/me", headers=twice)
    assert management.status_code in {400, 401}


def test_a_persons_token_does_not_speak_to_models(stage: Stage) -> None:
    stage.deployment()
    assert stage.post(CHAT, stage.key(None), json=GOOD).status_code == 401
