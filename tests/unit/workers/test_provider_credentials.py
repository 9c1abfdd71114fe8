"""Credentials on their whole way to a provider, on real sockets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from governance.credentials.secrets import AwsSecret, OAuth2Secret
from governance.errors import Unavailable
from tests.unit.governance.siem_support import make_certificates
from tests.unit.workers.provider import (
    END,
    STREAM,
    Caller,
    Provider,
    Received,
    chunk,
    described,
    event,
    replies,
)
from tests.unit.workers.test_egress_credentials import CANARY, Plane, sealed
from tests.waiting import PATIENCE_S
from workers.celery_tasks.egress import credentials_of
from workers.egress import sealed_credentials
from workers.egress.connections import EgressRules
from workers.egress.credentials import Credential, Credentials, NoCredentials

PIECE = event({"model": "test-1", "choices": [{"index": 0, "delta": {"content": "Hello"}}]})
STOP = event({"model": "test-1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})


class Later:
    """Credentials that use the connections of an engine which needs them first."""

    inner: Credentials = NoCredentials()

    async def get(self, name: str, **of: Any) -> Credential:
        return await self.inner.get(name, **of)


@contextmanager
def authenticated(
    folder: Path, provider: Provider, plane: Plane, *, ca_file: str = ""
) -> Iterator[Caller]:
    """An engine whose description names the credential of `plane`."""
    later = Later()
    rules = EgressRules(internal_hosts=frozenset({"localhost"}), ca_file=ca_file)
    description = described(provider.origin, credential="provider")
    caller = Caller(folder, description, rules=rules, credentials=later)
    later.inner = credentials_of(plane, caller.loop.egress, worker="egress-1")  # type: ignore[arg-type]
    try:
        yield caller
    finally:
        caller.close()
        provider.close()


@pytest.fixture(autouse=True)
def egress_process(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An egress worker, in which nothing stays fresh."""
    settings.EGRESS_KEYS = ["11" * 32]
    monkeypatch.setattr(sealed_credentials, "FRESH_S", 0.0)


def test_a_token_is_fetched_and_used_and_a_revocation_spares_what_runs(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made = make_certificates(tmp_path)
    context.load_cert_chain(made.server)
    go_on = asyncio.Event()

    async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
        if received.path == "/token":
            token = {"access_token": "t0ken", "expires_in": 3600}
            await replies(token)(received, writer)
            return
        if received.headers.get("authorization") != "Bearer t0ken":
            await replies({}, status="401 Unauthorized")(received, writer)
            return
        writer.write(STREAM + chunk(PIECE))
        await go_on.wait()
        writer.write(chunk(STOP) + chunk(event("[DONE]")) + END)
        await writer.drain()

    provider = Provider(behave, context)
    secret = OAuth2Secret(
        token_url=f"{provider.origin}/token", client_id="app", client_secret=CANARY, scope="all"
    )
    plane = Plane(sealed(secret, "oauth2", hosts=("localhost",)))
    with authenticated(tmp_path, provider, plane, ca_file=str(made.authority)) as caller:
        running = caller.ask()
        assert running.begun.wait(PATIENCE_S)
        plane.answer = Unavailable("The credential is revoked.", code="credential_unavailable")
        refused = caller.ask().failed
        assert (refused.code, refused.status) == ("credential_unavailable", 503)
        provider.loop.call_soon_threadsafe(go_on.set)
        assert running.done.finish_reason == "stop"
        assert running.text == "Hello"
        first, *others = provider.received
        assert (first.path, len(others)) == ("/token", 1)
        form = parse_qs(first.body.decode())
        assert (form["client_secret"], form["scope"]) == ([CANARY], ["all"])
        assert CANARY.encode() not in others[0].body + repr(others[0].headers).encode()


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(hours=1), timedelta(hours=-1)], ids=str)
def test_a_signature_of_a_wrong_clock_is_named(tmp_path: Path, ahead: timedelta) -> None:
    """A provider that judges the time of signatures as AWS does."""

    async def behave(received: Received, writer: asyncio.StreamWriter) -> None:
        signed_at = datetime.strptime(received.headers["x-amz-date"] + "+0000", "%Y%m%dT%H%M%SZ%z")
        late = datetime.now(UTC) + ahead - signed_at
        if abs(late) < timedelta(minutes=5):
            writer.write(STREAM + b"".join(map(chunk, (PIECE, STOP, event("[DONE]")))) + END)
            await writer.drain()
            return
        fault = "Signature expired" if late > timedelta(0) else "Signature not yet current"
        body = {"message": f"{fault}: {signed_at:%Y%m%dT%H%M%SZ} is too far away."}
        await replies(body, status="403 Forbidden")(received, writer)

    provider = Provider(behave)
    secret = AwsSecret(
        access_key_id="AKIAIOSFODNN7EXAMPLE", secret_access_key=CANARY, region="eu-west-1"
    )
    plane = Plane(sealed(secret, "aws", hosts=("localhost",)))
    with authenticated(tmp_path, provider, plane) as caller:
        answers = caller.ask()
        if not ahead:
            assert answers.done.finish_reason == "stop"
            return
        failed = answers.failed
        assert (failed.code, failed.status) == ("credential_unavailable", 503)
        assert "the clock of the egress worker is wrong" in failed.message
