"""Credentials by API, pages and commands: entered once, shown by none of them."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client

from assay.models import IdempotencyRecord
from governance.credentials.models import Credential, CredentialUse
from governance.credentials.sealing import KeyOpener, secret_context
from governance.people.models import Department, Person
from registry.versions.models import Model, ModelVersion
from tests.proofs import signed_in
from tests.unit.assay.api_support import Api, problem_of
from tests.unit.assay.test_cli import Run, ada, run
from tests.unit.assay.test_cli import signed_in as command_line
from tests.unit.dump import found

__all__ = ["ada", "command_line", "run"]

PRIVATE = b"\x11" * 32
CANARY = "sk-quicksilver-7f3a91"
BODY = {
    "department": "clinical",
    "name": "openai",
    "kind": "header",
    "hosts": ["api.openai.com"],
    "secret": f"Bearer {CANARY}",
}


def opened(credential: Credential) -> str:
    context = secret_context(
        department=credential.department.slug,
        name=credential.name,
        kind=credential.kind,
        hosts=credential.hosts,
        version=credential.version,
    )
    return KeyOpener([PRIVATE]).open(bytes(credential.sealed), context).decode()


@pytest.fixture
def lead(policy: object, redis: object, person: Callable[..., Person]) -> Person:
    return person("Lena", "lead@clinical")


def test_the_api_takes_a_secret_and_gives_none_back(
    lead: Person, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    api = Api(lead)
    made = api.post("credentials", BODY, **{"Idempotency-Key": "once"})
    assert made.status_code == 201, made.content
    credential = Credential.objects.get()
    assert CANARY in opened(credential)
    path = f"credentials/{made.body['id']}"
    rotated = api.post(f"{path}/rotate", {"secret": f"Bearer {CANARY}-2", "version": 1})
    assert (rotated.status_code, rotated.body["version"]) == (200, 2)
    CredentialUse.objects.create(
        credential=credential, deployment="chat", used_at=credential.created_at
    )
    model = Model.objects.create(
        name="gpt", department=credential.department, task="text-generation", created_by=lead
    )
    ModelVersion.objects.create(
        model=model, number=1, kind="hosted", digest="d" * 64, manifest={}, size_bytes=1,
        parameters={"credential": "openai"}, created_by=lead,
    )  # fmt: skip
    shown = api.get(path)
    assert [use["deployment"] for use in shown.body["uses"]] == ["chat"]
    assert [version["name"] for version in shown.body["versions"]] == ["gpt v1"]
    listed = api.get("credentials", department="clinical", state="active")
    assert [row["name"] for row in listed.body["results"]] == ["openai"]
    conflict = problem_of(api.post(f"{path}/rotate", {"secret": "Bearer x", "version": 1}), 409)
    assert conflict["code"] == "credential_rotated"
    refused = api.post("credentials", BODY | {"name": "b", "secret": f"{CANARY}\r\nx: y"})
    assert problem_of(refused, 422)["errors"][0]["field"] == "secret"
    revoked = api.post(f"{path}/revoke")
    assert (revoked.body["state"], revoked.body["sealed_to"]) == ("revoked", "")
    for answer in (made, rotated, shown, listed, refused, revoked):
        assert "quicksilver" not in answer.content.decode()
        assert 'sealed"' not in answer.content.decode()
    # Not even as a digest: requests with a secret are never stored.
    assert not IdempotencyRecord.objects.exists()
    assert found(["quicksilver"]) == []
    assert "quicksilver" not in caplog.text


def test_another_departments_credential_does_not_exist(
    lead: Person, person: Callable[..., Person]
) -> None:
    path = f"credentials/{Api(lead).post('credentials', BODY).body['id']}"
    stranger = Api(person("Fay", "lead@finance"))
    for answer in (
        stranger.get(path),
        stranger.post(f"{path}/rotate", {"secret": "Bearer x"}),
        stranger.post(f"{path}/revoke"),
        stranger.post("credentials", BODY | {"name": "theirs"}),
    ):
        assert answer.status_code == 404, answer.content
    assert stranger.get("credentials").body["results"] == []
    assert Credential.objects.get().state == "active"


FORM = {"name": "openai", "hosts": "api.openai.com\n", "header": "authorization"}


@pytest.fixture
def browser(lead: Person) -> Client:
    return signed_in(Client(raise_request_exception=False), lead)


def test_the_pages_take_a_secret_and_show_none(browser: Client, lead: Person) -> None:
    clinical = Department.objects.get(slug="clinical")
    page = browser.get("/credentials/new").content.decode()
    assert 'type="password"' in page
    form = FORM | {"department": clinical.pk, "secret": f"Bearer {CANARY}"}
    wrong = browser.post("/credentials/new", form | {"hosts": "https://api.openai.com"})
    assert wrong.status_code == 400
    told = wrong.content.decode()
    assert "https://api.openai.com" in told
    assert "quicksilver" not in told
    made = browser.post("/credentials/new", form)
    assert made.status_code == 302, made.content
    credential = Credential.objects.get()
    assert CANARY in opened(credential)
    path = f"/credentials/{credential.pk}"
    pages = [browser.get(each).content.decode() for each in (path, "/credentials")]
    assert all("openai" in each and "quicksilver" not in each for each in pages)

    kinds = ("oauth2", "google", "aws")
    assert all(browser.get(f"/credentials/new?kind={kind}").status_code == 200 for kind in kinds)
    aws = {
        "department": clinical.pk, "name": "bedrock", "hosts": "bedrock.example",
        "access_key_id": "AKIAIOSFODNN7EXAMPLE", "region": "eu-west-1", "service": "bedrock",
        "secret": "wJalrXUtnFEMI",
    }  # fmt: skip
    assert browser.post("/credentials/new?kind=aws", aws).status_code == 302

    assert 'name="version" value="1"' in browser.get(f"{path}/rotate").content.decode()
    rotation = {"hosts": "eu.api.openai.com", "header": "authorization", "version": "1"}
    done = browser.post(f"{path}/rotate", rotation | {"secret": "Bearer second"})
    assert done.status_code == 302, done.content
    late = browser.post(f"{path}/rotate", rotation | {"secret": f"Bearer {CANARY}"})
    assert (late.status_code, "quicksilver" in late.content.decode()) == (409, False)
    credential.refresh_from_db()
    assert (credential.version, credential.hosts) == (2, ["eu.api.openai.com"])
    assert browser.post(f"{path}/revoke").status_code == 302
    assert "Its secret is" in browser.get(path).content.decode()
    assert found(["quicksilver"]) == []


def test_the_second_factor_comes_before_the_form(lead: Person) -> None:
    """A page that asks for it afterward would have to carry the secret."""
    client = Client(raise_request_exception=False)
    client.force_login(lead)
    opened = client.get("/credentials/new?kind=aws")
    assert opened.status_code == 302
    assert opened["Location"].startswith("/account/prove?next=%2Fcredentials%2Fnew%3Fkind%3Daws")
    clinical = Department.objects.get(slug="clinical")
    form = FORM | {"department": clinical.pk, "secret": f"Bearer {CANARY}"}
    sent = client.post("/credentials/new", form)
    assert (sent.status_code, "quicksilver" in str(sent.headers)) == (302, False)
    page = client.get(sent["Location"]).content.decode()
    assert "enter the secret again" in page
    assert "quicksilver" not in page + str(dict(client.session))
    assert not Credential.objects.exists()


def test_people_who_may_not_enter_one_see_no_form(
    lead: Person, person: Callable[..., Person]
) -> None:
    number = Api(lead).post("credentials", BODY).body["id"]
    developer = signed_in(Client(), person("Dev", "developer@clinical"))
    assert developer.get("/credentials/new").status_code == 403
    assert developer.get(f"/credentials/{number}/rotate").status_code == 403
    page = developer.get(f"/credentials/{number}").content.decode()
    assert "Rotate" not in page
    assert "Revoke" not in page
    viewer = signed_in(Client(), person("Vi", "viewer@clinical"))
    assert viewer.get(f"/credentials/{number}").status_code == 404


@pytest.mark.django_db(transaction=True)
def test_the_commands_read_the_secret_from_standard_input(
    command_line: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"Bearer {CANARY}\n"))
    options = ("--host", "api.openai.com")
    _, out, err = command_line("credentials", "create", "clinical", "openai", *options, code=0)
    credential = Credential.objects.get()
    assert opened(credential).endswith(f'"value":"Bearer {CANARY}"}}')
    number = str(credential.pk)
    for arguments in (("list",), ("show", number)):
        _, more, _ = command_line("credentials", *arguments, code=0)
        assert "api.openai.com" in more
        out += more
    monkeypatch.setattr(sys, "stdin", io.StringIO("Bearer second"))
    command_line("credentials", "rotate", number, "--version", "1", code=0)
    command_line("credentials", "revoke", number, code=0)
    monkeypatch.setattr(sys, "stdin", io.StringIO("x" * 20_000))
    _, _, refused = command_line("credentials", "rotate", number, code=1)
    assert "more than 16,384 characters" in refused
    assert "quicksilver" not in out + err + refused


def test_the_public_key_is_derived_from_the_private_one(settings: Any) -> None:
    settings.EGRESS_KEYS = [PRIVATE.hex()]
    out = io.StringIO()
    call_command("egress_public_key", stdout=out)
    assert out.getvalue().strip() == settings.EGRESS_PUBLIC_KEY
