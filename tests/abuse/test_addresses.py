"""Client addresses: the peer and trusted proxies state them, no other party."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from django.test import Client

from governance.audit.models import AuditEvent
from governance.audit.personal import opened_body
from governance.people.attempts import MAX_ADDRESS_FAILURES, MAX_FAILURES
from tests.abuse.company import token_of
from tests.unit.assay.gateway_support import Stage, stage
from tests.unit.assay.portal_data import Company

__all__ = ["stage"]

CHAT = "/v1/chat/completions"
GOOD = {"model": "writer", "messages": [{"role": "user", "content": "Hi"}]}
FORGERIES = (
    {"x-forwarded-for": "10.0.0.1"},
    {"x-forwarded-for": "10.0.0.1, 127.0.0.1"},
    {"x-real-ip": "10.0.0.1"},
    {"forwarded": "for=10.0.0.1"},
    {"client-ip": "10.0.0.1"},
    {"x-client-ip": "10.0.0.1"},
    {"cf-connecting-ip": "10.0.0.1"},
    {"true-client-ip": "10.0.0.1"},
)


def recorded_address(token: str, headers: dict[str, str], peer: str = "203.0.113.9") -> str:
    """Return the address in the log for a refused call from `peer`."""
    client = Client(headers={"authorization": f"Bearer {token}", **headers}, REMOTE_ADDR=peer)
    client.post("/api/v1/keys/999/revoke", {}, content_type="application/json")
    return str(opened_body(AuditEvent.objects.latest("pk"))["client_address"])


@pytest.mark.parametrize("headers", FORGERIES)
def test_the_log_holds_the_peers_address(company: Company, headers: dict[str, str]) -> None:
    assert recorded_address(token_of(company, "an admin"), headers) == "203.0.113.9"


@pytest.mark.parametrize(
    ("forwarded", "seen"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("10.9.9.9, 198.51.100.7", "198.51.100.7"),
        ("198.51.100.7, 10.0.0.2", "198.51.100.7"),
        ("evil, 198.51.100.7", "198.51.100.7"),
        ("198.51.100.7, evil", "10.0.0.2"),
        ("", "10.0.0.2"),
        ("'; DROP TABLE x; --", "10.0.0.2"),
        (", ".join(["10.0.0.2"] * 500), "10.0.0.2"),
    ],
)
def test_a_trusted_proxy_is_believed_about_its_own_client_only(
    company: Company, settings: Any, forwarded: str, seen: str
) -> None:
    """The proxy passes on what the client itself put in front; it must not count."""
    settings.TRUSTED_PROXIES = ["10.0.0.2"]
    token = token_of(company, "an admin")
    assert recorded_address(token, {"x-forwarded-for": forwarded}, peer="10.0.0.2") == seen


def guess(email: str, **more: Any) -> int:
    body = {"email": email, "password": "a wrong password"}
    client = Client(raise_request_exception=False, REMOTE_ADDR="203.0.113.9")
    path = "/api/v1/auth/token"
    return int(client.post(path, body, content_type="application/json", **more).status_code)


def test_a_forged_address_gives_no_more_guesses_at_one_password(company: Company) -> None:
    statuses = [
        guess("enzo@assay.example", headers={"x-forwarded-for": f"10.0.0.{number}"})
        for number in range(MAX_FAILURES + 3)
    ]
    assert statuses == [401] * MAX_FAILURES + [429] * 3


def test_a_forged_address_gives_no_more_accounts_to_try(company: Company) -> None:
    """One password on everybody: the address is what counts, and it is not what the header says."""
    statuses = [
        guess(f"person-{number}@assay.example", headers={"x-forwarded-for": f"10.0.{number}.1"})
        for number in range(MAX_ADDRESS_FAILURES + 3)
    ]
    assert statuses[-3:] == [429, 429, 429]
    assert set(statuses[:-3]) == {401}


def test_an_address_written_differently_is_the_same_one(company: Company) -> None:
    spellings = ("ENZO@assay.example", " enzo@assay.example ", "enzo@ASSAY.example")
    statuses = [guess(spellings[number % 3]) for number in range(MAX_FAILURES + 2)]
    assert statuses[-2:] == [429, 429]


@pytest.mark.parametrize("headers", FORGERIES)
def test_a_key_for_one_network_is_not_moved_by_a_header(
    stage: Stage, headers: dict[str, str]
) -> None:
    """The key works from 10.0.0.0/8 alone, and the caller is on the loopback."""
    stage.deployment()
    token = stage.key(networks=["10.0.0.0/8"])
    response = stage.post(CHAT, token, json=GOOD, headers=headers)
    assert response.status_code in {401, 403}
    assert stage.responders[0].requests == []


def test_the_ledger_holds_the_peers_address(stage: Stage) -> None:
    stage.deployment()
    stage.post(CHAT, stage.key(), json=GOOD, headers={"x-forwarded-for": "10.0.0.1"})
    assert stage.entries()[0].client_address == "127.0.0.1"


def test_a_host_that_is_not_ours_is_refused(stage: Stage) -> None:
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1@evil.example", ""):
        answer = httpx.get(f"{stage.url}/sign-in", headers={"host": host})
        assert answer.status_code == 400, host
        assert "evil" not in answer.headers.get("location", "")
