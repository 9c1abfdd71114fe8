"""Credentials in an egress worker: opened there alone, confirmed every few seconds."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.db import OperationalError

from governance.credentials.sealing import KeyOpener, public_key_of, seal, secret_context
from governance.credentials.secrets import (
    AwsSecret,
    GoogleSecret,
    HeaderSecret,
    OAuth2Secret,
    Secret,
)
from governance.errors import Unavailable
from workers.control.protocol import SealedCredential
from workers.egress import sealed_credentials
from workers.egress.credentials import Credential
from workers.egress.kinds import tokens
from workers.egress.kinds.google import GRANT
from workers.egress.sealed_credentials import FRESH_S, SealedCredentials
from workers.engines.protocol import RequestRefused

PRIVATE, OTHER = b"\x11" * 32, b"\x22" * 32
CANARY = "sk-quicksilver-7f3a91"
HOST = "api.example.com"
URL = f"https://{HOST}/v1/chat/completions"
TOKENS = "login.example.com"


def sealed(
    secret: Secret, kind: str, *, version: int = 1, private: bytes = PRIVATE, **changes: Any
) -> SealedCredential:
    """A row as the control plane gives it."""
    hosts = tuple(sorted({HOST, *filter(None, [secret.token_host])}))
    bound: dict[str, Any] = {
        "department": "clinical", "name": "provider", "kind": kind, "hosts": hosts,
        "version": version,
    } | changes  # fmt: skip
    context = secret_context(**bound)
    value = seal(secret.sealable(), public=public_key_of(private), context=context)
    return SealedCredential(id=7, **bound, sealed=value)


def header(value: str = f"Bearer {CANARY}", **changes: Any) -> SealedCredential:
    return sealed(HeaderSecret(value=value), "header", **changes)


@dataclass
class Plane:
    """A control plane with one row: what it answers, and how often it was asked."""

    answer: SealedCredential | Exception
    asked: int = 0

    def credential(
        self,
        *,
        worker: str,
        deployment_id: int,
        name: str,
        host: str,
        intake_id: int = 0,
        job_id: str = "",
    ) -> SealedCredential:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def drop_broken(self) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass
class Endpoint:
    """A token endpoint: what it answers, and what it was sent."""

    status: int = 200
    answer: Any = field(
        default_factory=lambda: {
            "access_token": "t0ken",
            "token_type": "Bearer",
            "expires_in": 3600,
        }
    )
    sent: list[tuple[str, dict[str, list[str]]]] = field(default_factory=list)
    hold: asyncio.Event | None = None

    async def __call__(
        self, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes]:
        self.sent.append((url, parse_qs(body.decode())))
        if self.hold is not None:
            await self.hold.wait()
        content = self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer)
        return self.status, content if isinstance(content, bytes) else content.encode()


def credentials(
    plane: Plane, endpoint: Endpoint | None = None, *, outage_s: float = 30.0, keys: Any = None
) -> SealedCredentials:
    return SealedCredentials(
        plane,
        worker="egress-1",
        opener=KeyOpener(keys or [PRIVATE]),
        fetch=endpoint or Endpoint(),
        outage_s=outage_s,
    )


async def got(known: SealedCredentials, *, deployment_id: int = 1, host: str = HOST) -> Credential:
    return await known.get("provider", host=host, deployment_id=deployment_id)


async def authorization(known: SealedCredentials, **more: Any) -> str:
    credential = await got(known, **more)
    return (await credential.headers("POST", URL, b"{}"))["authorization"]


@pytest.fixture
def asks_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing stays fresh."""
    monkeypatch.setattr(sealed_credentials, "FRESH_S", 0.0)
    monkeypatch.setattr(sealed_credentials, "RETRY_S", 0.0)


async def refused(known: SealedCredentials, **more: Any) -> RequestRefused:
    with pytest.raises(RequestRefused) as caught:
        await authorization(known, **more)
    assert (caught.value.code, caught.value.status) == ("credential_unavailable", 503)
    return caught.value


async def test_a_secret_is_opened_and_used_while_it_is_fresh() -> None:
    plane = Plane(header())
    known = credentials(plane)
    for _ in range(5):
        assert await authorization(known) == f"Bearer {CANARY}"
    assert plane.asked == 1
    # The documentation promises 5 seconds.
    assert FRESH_S < 5
    known.close()


async def test_a_revoked_credential_is_refused_and_a_rotated_one_replaced(
    asks_each_time: None,
) -> None:
    plane = Plane(header())
    known = credentials(plane)
    await authorization(known)
    plane.answer = header("Bearer second", version=2)
    assert await authorization(known) == "Bearer second"
    plane.answer = Unavailable("The credential is revoked.", code="credential_unavailable")
    assert "revoked" in str(await refused(known))
    # Also while the control plane is away: the refusal was an answer.
    plane.answer = OperationalError("gone")
    await refused(known)
    plane.answer = header("Bearer third", version=3)
    assert await authorization(known) == "Bearer third"


async def test_an_outage_is_survived_as_long_as_a_deployment_may_serve(
    asks_each_time: None,
) -> None:
    plane = Plane(header())
    patient, impatient = credentials(plane), credentials(plane, outage_s=0.0)
    await authorization(patient)
    await authorization(impatient)
    plane.answer = OperationalError(f"connection lost {CANARY}")
    assert await authorization(patient) == f"Bearer {CANARY}"
    error = await refused(impatient)
    assert CANARY not in str(error)
    await refused(credentials(plane))


@pytest.mark.parametrize(
    "moved",
    [
        {"department": "finance"},
        {"name": "other"},
        {"kind": "aws"},
        {"hosts": (HOST, "evil.example")},
        {"version": 2},
        {"sealed": b""},
        {"kind": "unknown"},
    ],
    ids=str,
)
async def test_a_row_that_was_changed_does_not_open(
    moved: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    known = credentials(Plane(replace(header(), **moved)))
    error = await refused(known)
    assert "enter it again" in str(error)
    assert "quicksilver" not in caplog.text + str(error) + repr(header())
    assert "cannot be opened" in caplog.text


@pytest.mark.parametrize(
    "moved",
    [{"department": "finance"}, {"hosts": (HOST, "evil.example")}, {"sealed": b""}],
    ids=str,
)
async def test_a_row_that_was_changed_after_it_was_opened_is_refused(
    moved: dict[str, Any], asks_each_time: None
) -> None:
    plane = Plane(header())
    known = credentials(plane)
    await authorization(known)
    plane.answer = replace(header(), **moved)
    assert "enter it again" in str(await refused(known, host=plane.answer.hosts[-1]))
    plane.answer = header()
    assert await authorization(known) == f"Bearer {CANARY}"


async def test_an_older_row_that_is_put_back_is_refused(asks_each_time: None) -> None:
    older = header("Bearer older", version=1)
    plane = Plane(header("Bearer newer", version=2))
    known = credentials(plane)
    assert await authorization(known) == "Bearer newer"
    plane.answer = older
    assert "older version" in str(await refused(known))


async def test_the_worker_itself_checks_the_hosts() -> None:
    known = credentials(Plane(header()))
    assert "may not be sent to evil.example" in str(await refused(known, host="evil.example"))
    elsewhere = OAuth2Secret(
        token_url="https://evil.example/token",
        client_id="id",
        client_secret=CANARY,
    )
    endpoint = Endpoint()
    known = credentials(Plane(sealed(elsewhere, "oauth2", hosts=(HOST,))), endpoint)
    await refused(known)
    assert endpoint.sent == []


async def test_keys_are_rotated_with_two_and_others_open_nothing() -> None:
    plane = Plane(header(private=OTHER))
    assert await authorization(credentials(plane, keys=[PRIVATE, OTHER])) == f"Bearer {CANARY}"
    await refused(credentials(plane, keys=[PRIVATE]))


async def test_many_requests_read_once_and_a_canceled_one_ends_no_other() -> None:
    plane = Plane(header())
    known = credentials(plane)
    first = asyncio.create_task(authorization(known))
    others = [asyncio.create_task(authorization(known)) for _ in range(50)]
    await asyncio.sleep(0)
    first.cancel()
    assert set(await asyncio.gather(*others)) == {f"Bearer {CANARY}"}
    assert plane.asked == 1


def oauth2(**changes: Any) -> SealedCredential:
    secret = OAuth2Secret(
        token_url=f"https://{TOKENS}/t/oauth2/v2.0/token",
        client_id="app",
        client_secret=CANARY,
        scope="https://cognitiveservices.azure.com/.default",
    )
    return sealed(secret, "oauth2", **changes)


async def test_one_token_is_fetched_for_all_requests_and_deployments() -> None:
    endpoint = Endpoint(hold=asyncio.Event())
    known = credentials(Plane(oauth2()), endpoint)
    first = asyncio.create_task(authorization(known))
    others = [
        asyncio.create_task(authorization(known, deployment_id=number % 3)) for number in range(30)
    ]
    while not endpoint.sent:
        await asyncio.sleep(0)
    first.cancel()
    assert endpoint.hold is not None
    endpoint.hold.set()
    assert set(await asyncio.gather(*others)) == {"Bearer t0ken"}
    ((url, form),) = endpoint.sent
    assert url == f"https://{TOKENS}/t/oauth2/v2.0/token"
    assert form == {
        "grant_type": ["client_credentials"],
        "client_id": ["app"],
        "client_secret": [CANARY],
        "scope": ["https://cognitiveservices.azure.com/.default"],
    }


async def test_a_token_is_renewed_before_it_expires_and_a_failure_keeps_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint = Endpoint()
    known = credentials(Plane(oauth2()), endpoint)
    assert await authorization(known) == "Bearer t0ken"
    # From now on, a token needs renewal during its whole life.
    monkeypatch.setattr(tokens, "RENEWED_FRACTION", 1.0)
    monkeypatch.setattr(tokens, "RENEWED_S", 1e9)
    endpoint.answer = {"access_token": "second", "expires_in": "3600"}
    assert await authorization(known) == "Bearer t0ken"
    await settled(lambda: len(endpoint.sent) == 2)
    endpoint.status = 500
    assert await authorization(known) == "Bearer second"
    await settled(lambda: len(endpoint.sent) == 3)
    for _ in range(20):
        assert await authorization(known) == "Bearer second"
    # After the failure, it is not asked again at once.
    assert len(endpoint.sent) == 3


async def settled(reached: Callable[[], bool]) -> None:
    """Let the other tasks run until `reached`, and then to their end."""
    while not reached():
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (401, {"error": "invalid_client", "error_description": f"bad {CANARY}"}),
        (400, {"error": f"no {CANARY}"}),
        (500, b"<html>"),
        (200, b"[" * 50_000),
        (200, b"[]"),
        (200, {}),
        (200, {"access_token": 5}),
        (200, {"access_token": "a\r\nx-evil: 1"}),
        (200, {"access_token": "a" * 20_000}),
        (200, {"access_token": "a", "token_type": "mac"}),
        (200, {"access_token": "a", "token_type": 5}),
        (302, b""),
    ],
    ids=str,
)
async def test_a_token_endpoint_that_refuses_or_rambles(
    status: int, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    endpoint = Endpoint(status=status, answer=answer)
    known = credentials(Plane(oauth2()), endpoint)
    error = await refused(known)
    assert TOKENS in str(error)
    assert "quicksilver" not in str(error) + caplog.text
    # Others learn the same without another request.
    for _ in range(10):
        assert str(await refused(known)) == str(error)
    assert len(endpoint.sent) == 1


@pytest.mark.parametrize("stated", [None, "soon", -5, 0, float("nan"), [], 10**400, "1e999"])
async def test_a_token_with_an_odd_life_is_used(stated: Any) -> None:
    body = json.dumps({"access_token": "t", "expires_in": stated}).encode()
    known = credentials(Plane(oauth2()), Endpoint(answer=body))
    assert await authorization(known) == "Bearer t"


def google_secret() -> tuple[RSAPrivateKey, GoogleSecret]:
    key = generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    secret = GoogleSecret(
        client_email="assay@project.iam.gserviceaccount.com",
        private_key_id="ab12",
        private_key=pem,
        token_uri=f"https://{TOKENS}/token",
    )
    return key, secret


def decoded(part: str) -> Any:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


async def test_a_service_account_signs_for_its_token() -> None:
    key, secret = google_secret()
    endpoint = Endpoint()
    known = credentials(Plane(sealed(secret, "google")), endpoint)
    assert await authorization(known) == "Bearer t0ken"
    ((url, form),) = endpoint.sent
    assert (url, form["grant_type"]) == (f"https://{TOKENS}/token", [GRANT])
    head, claims, signature = form["assertion"][0].split(".")
    key.public_key().verify(decoded(signature), f"{head}.{claims}".encode(), PKCS1v15(), SHA256())
    assert json.loads(decoded(head)) == {"alg": "RS256", "typ": "JWT", "kid": "ab12"}
    stated = json.loads(decoded(claims))
    assert stated["exp"] - stated["iat"] == 3600
    assert stated["aud"] == f"https://{TOKENS}/token"
    assert stated["iss"] == "assay@project.iam.gserviceaccount.com"


async def test_a_wrong_clock_is_named_when_google_refuses() -> None:
    _, secret = google_secret()
    endpoint = Endpoint(status=400, answer={"error": "invalid_grant"})
    error = await refused(credentials(Plane(sealed(secret, "google")), endpoint))
    assert "clock of the egress worker" in str(error)


def expected_signature(secret: str, at: str, url: str, body: bytes) -> str:
    """The signature that AWS computes, by the text of its specification."""
    host, _, path = url.removeprefix("https://").partition("/")
    signed = "\n".join(
        [
            "POST",
            f"/{path}".replace("%", "%25").replace(":", "%3A"),
            "",
            f"host:{host}",
            f"x-amz-date:{at}",
            "",
            "host;x-amz-date",
            hashlib.sha256(body).hexdigest(),
        ]
    )
    scope = f"{at[:8]}/eu-west-1/bedrock/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashlib.sha256(signed.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, text.encode(), "sha256").hexdigest()


async def test_requests_to_aws_are_signed_with_their_body() -> None:
    secret = AwsSecret(
        access_key_id="AKIAIOSFODNN7EXAMPLE",
        secret_access_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        region="eu-west-1",
    )
    credential = await got(credentials(Plane(sealed(secret, "aws"))))
    url = f"https://{HOST}/model/anthropic.claude-v1:0/invoke"
    signatures = set()
    for body in (b"{}", b'{"a": 1}'):
        headers = await credential.headers("POST", url, body)
        assert set(headers) == {"authorization", "x-amz-date"}
        signature = headers["authorization"].rpartition("Signature=")[2]
        plain = secret.secret_access_key.get_secret_value()
        assert signature == expected_signature(plain, headers["x-amz-date"], url, body)
        assert "SignedHeaders=host;x-amz-date," in headers["authorization"]
        signatures.add(signature)
    assert len(signatures) == 2
