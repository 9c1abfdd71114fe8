"""Restrictions of a key, and the effect of their change on new and running requests."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.db import DatabaseError
from django.utils import timezone

from assay.gateway.access import admission, refresher
from assay.gateway.run import execution
from governance.keys.models import ApiKey
from governance.keys.notices import key_notice
from registry.releases.models import Release, ReleaseState
from tests.unit.assay.gateway_support import Reply, Stage, stage
from tests.waiting import PATIENCE_S, wait_until
from workers.wire import SNAPSHOT_CHANNEL, Delta, Done, InferenceRequest

pytestmark = pytest.mark.sweep

__all__ = ["stage"]

CHAT = "/v1/chat/completions"
GOOD: dict[str, Any] = {
    "model": "writer",
    "messages": [{"role": "user", "content": "Hi"}],
    "max_tokens": 10,
}


class Endless:
    """An engine that says a word every few milliseconds until it is called off."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.said = 0

    def __call__(self, request: InferenceRequest, reply: Reply) -> None:
        while request.request_id not in self.stage.responders[0].canceled:
            reply(Delta("word ", 1))
            self.said += 1
            time.sleep(0.02)
        reply(Done("canceled", prompt_tokens=5, completion_tokens=self.said))


class Stream:
    """A streamed answer, read in a thread."""

    def __init__(self, stage: Stage, token: str) -> None:
        self.lines: list[str] = []
        self.ended_at = 0.0
        self.broken = False
        self._stage, self._token = stage, token
        self.thread = threading.Thread(target=self._read)
        self.thread.start()
        wait_until(lambda: len(self.lines) > 4)

    def _read(self) -> None:
        headers = {"authorization": f"Bearer {self._token}"}
        body = {**GOOD, "stream": True}
        url = f"{self._stage.url}{CHAT}"
        try:
            with httpx.stream(
                "POST", url, json=body, headers=headers, timeout=PATIENCE_S
            ) as response:
                self.lines.extend(line for line in response.iter_lines() if line)
        except httpx.HTTPError:
            self.broken = True
        self.ended_at = time.monotonic()

    def end(self) -> str:
        """The last line, once it has ended."""
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()
        return self.lines[-1]


def public_id(token: str) -> str:
    return token.split("_")[1]


def change(stage: Stage, token: str, **columns: Any) -> float:
    """Change the key and publish its notice, as the services do; says when."""
    ApiKey.objects.filter(public_id=public_id(token)).update(**columns)
    stage.redis.publish(SNAPSHOT_CHANNEL, key_notice(public_id(token)))
    return time.monotonic()


def test_a_key_is_accepted_only_from_its_networks(stage: Stage) -> None:
    stage.deployment()
    here = stage.key(networks=["127.0.0.0/8"])
    elsewhere = stage.key(networks=["192.0.2.0/24"])
    assert stage.post(CHAT, here, json=GOOD).status_code == 200
    refused = stage.post(CHAT, elsewhere, json=GOOD)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "address_not_allowed")
    assert "127.0.0.1" in refused.text
    entry = stage.entries(2)[-1]
    assert (entry.outcome, entry.key_public_id) == ("address_not_allowed", public_id(elsewhere))


def test_only_a_trusted_proxy_may_say_where_a_request_comes_from(
    stage: Stage, settings: Any
) -> None:
    stage.deployment()
    token = stage.key(networks=["192.0.2.0/24"])
    forged = {"x-forwarded-for": "192.0.2.7"}
    assert stage.post(CHAT, token, json=GOOD, headers=forged).status_code == 401
    settings.TRUSTED_PROXIES = ["127.0.0.0/8"]
    assert stage.post(CHAT, token, json=GOOD, headers=forged).status_code == 200
    behind = {"x-forwarded-for": "192.0.2.7, 198.51.100.1"}
    assert stage.post(CHAT, token, json=GOOD, headers=behind).status_code == 401
    assert stage.entries(3)[1].client_address == "192.0.2.7"


def test_a_key_is_limited_to_the_deployments_it_names(stage: Stage) -> None:
    stage.deployment("writer")
    stage.deployment("judge")
    token = stage.key(allowed_deployments=["judge"])
    assert stage.post(CHAT, token, json={**GOOD, "model": "judge"}).status_code == 200
    refused = stage.post(CHAT, token, json=GOOD)
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "deployment_not_allowed"
    assert "limited to judge" in refused.text
    headers = {"authorization": f"Bearer {token}"}
    listed = httpx.get(f"{stage.url}/v1/models", headers=headers).json()["data"]
    assert {model["id"]: model["usable"] for model in listed} == {"judge": True, "writer": False}


def test_two_secrets_of_one_application_share_its_limits(stage: Stage) -> None:
    stage.deployment()
    old = stage.key()
    first = ApiKey.objects.get(public_id=public_id(old))
    new = stage.key(rotated_from=first, root=first)
    from governance.quotas.models import QuotaLimit

    QuotaLimit.objects.create(api_key=first, kind="requests_per_minute", limit=3)
    stage.notify()
    statuses = [stage.post(CHAT, key, json=GOOD).status_code for key in (old, new, old, new)]
    assert statuses == [200, 200, 200, 429]


def test_a_revoked_key_cuts_its_streams_with_an_error_and_settles_them_once(stage: Stage) -> None:
    engine = Endless(stage)
    stage.deployment(behavior=engine)
    token, other = stage.key(), stage.key()
    stream, bystander = Stream(stage, token), Stream(stage, other)
    change(stage, token, revoked_at=timezone.now())
    assert "is revoked" in stream.end()
    assert '"code": "invalid_api_key"' in stream.lines[-1]
    assert "data: [DONE]" not in stream.lines
    assert bystander.thread.is_alive()
    (entry,) = stage.entries()
    assert (entry.outcome, entry.ran, entry.prompt_tokens) == ("canceled", True, 5)
    assert entry.completion_tokens > 0
    assert "is revoked" in entry.reason
    change(stage, other, revoked_at=timezone.now())
    bystander.end()
    assert len(stage.entries(2)) == 2


def test_a_request_that_has_not_begun_to_answer_gets_the_refusal_itself(stage: Stage) -> None:
    def think(request: InferenceRequest, reply: Reply) -> None:
        wait_until(lambda: request.request_id in stage.responders[0].canceled)
        reply(Done("canceled", prompt_tokens=5, completion_tokens=0))

    stage.deployment(behavior=think)
    token = stage.key()
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(stage.post(CHAT, token, json=GOOD)))
    thread.start()
    wait_until(lambda: len(stage.responders[0].requests) == 1)
    change(stage, token, revoked_at=timezone.now())
    thread.join(PATIENCE_S)
    assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (401, "invalid_api_key")
    assert [entry.outcome for entry in stage.entries()] == ["canceled"]


def test_a_key_that_expires_cuts_its_streams_without_a_notice(stage: Stage, settings: Any) -> None:
    settings.GATEWAY_SNAPSHOT_TTL_S = 3600  # No key is read again meanwhile.
    stage.deployment(behavior=Endless(stage))
    stream = Stream(stage, stage.key())
    expires_at = timezone.now() + timedelta(seconds=2)
    ApiKey.objects.update(expires_at=expires_at)
    stage.notify()
    assert "is expired" in stream.end()
    assert timezone.now() >= expires_at


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({"networks": ["192.0.2.0/24"]}, "address_not_allowed"),
        ({"allowed_deployments": ["judge"]}, "deployment_not_allowed"),
    ],
)
def test_a_key_that_is_narrowed_cuts_what_no_longer_fits(
    stage: Stage, columns: dict[str, Any], code: str
) -> None:
    stage.deployment(behavior=Endless(stage))
    token = stage.key()
    stream = Stream(stage, token)
    change(stage, token, **columns)
    assert f'"code": "{code}"' in stream.end()


def test_a_changed_key_that_still_permits_it_leaves_its_streams_alone(stage: Stage) -> None:
    stage.deployment(behavior=Endless(stage))
    token = stage.key()
    stream = Stream(stage, token)
    change(stage, token, networks=["127.0.0.0/8"], allowed_deployments=["writer"])
    said = len(stream.lines)
    wait_until(lambda: len(stream.lines) > said + 20)
    change(stage, token, revoked_at=timezone.now())
    stream.end()


def test_a_release_that_is_withdrawn_cuts_streams_too(stage: Stage) -> None:
    stage.deployment(behavior=Endless(stage))
    stream = Stream(stage, stage.key())
    Release.objects.update(state=ReleaseState.WITHDRAWN)
    stage.redis.publish(SNAPSHOT_CHANNEL, "")
    assert '"code": "release_not_servable"' in stream.end()


def test_a_client_that_does_not_read_holds_the_cut_up_no_longer_than_a_second(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shout(request: InferenceRequest, reply: Reply) -> None:
        while request.request_id not in stage.responders[0].canceled:
            reply(Delta("word " * 20_000, 1))
            time.sleep(0.001)
        reply(Done("canceled", prompt_tokens=5, completion_tokens=7))

    # Its last event follows all others in the stream.
    monkeypatch.setattr(execution, "_LAST_WORD_S", 2.0)
    stage.deployment(behavior=shout)
    token = stage.key()
    headers = {"authorization": f"Bearer {token}"}
    body = {**GOOD, "stream": True}
    with httpx.stream("POST", f"{stage.url}{CHAT}", json=body, headers=headers):
        time.sleep(1)  # The buffers between fill up.
        changed = change(stage, token, revoked_at=timezone.now())
        (entry,) = stage.entries()
        # Long before the deadline of the request.
        assert time.monotonic() - changed < settings.GATEWAY_REQUEST_TIMEOUT_S / 2
    assert "is revoked" in entry.reason


def test_from_its_notice_on_nothing_is_decided_by_a_key_as_it_was(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the reading takes."""
    stage.deployment()
    token = stage.key()
    assert stage.post(CHAT, token, json=GOOD).status_code == 200
    read, go_on, asked = refresher.read_keys, threading.Event(), threading.Event()

    def slowly(limits: Any, ids: Any) -> Any:
        asked.set()
        found = read(limits, ids)
        go_on.wait(PATIENCE_S)
        return found

    monkeypatch.setattr(refresher, "read_keys", slowly)
    change(stage, token, revoked_at=timezone.now())
    assert asked.wait(PATIENCE_S)
    answers: list[int] = []
    thread = threading.Thread(
        target=lambda: answers.append(stage.post(CHAT, token, json=GOOD).status_code)
    )
    thread.start()
    thread.join(0.3)
    assert answers == []
    go_on.set()
    thread.join(PATIENCE_S)
    assert answers == [401]


def test_a_reading_that_began_before_the_notice_brings_no_dead_key_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.deployment()
    token = stage.key()
    read, go_on, begun = refresher.read_keys, threading.Event(), threading.Event()

    def stale(limits: Any, ids: Any) -> Any:
        found = read(limits, ids)
        begun.set()
        go_on.wait(PATIENCE_S)
        return found

    monkeypatch.setattr(refresher, "read_keys", stale)
    # Its first use reads it.
    answers: list[int] = []
    first = threading.Thread(
        target=lambda: answers.append(stage.post(CHAT, token, json=GOOD).status_code)
    )
    first.start()
    assert begun.wait(PATIENCE_S)
    change(stage, token, revoked_at=timezone.now())
    pending = stage.application.gateway.start().parts.refresher.pending
    wait_until(lambda: public_id(token) in pending)
    go_on.set()
    first.join(PATIENCE_S)
    # The waiting request is decided by the later reading, and is not told to try again.
    assert answers == [401]
    assert stage.post(CHAT, token, json=GOOD).status_code == 401


def test_a_changed_key_that_cannot_be_read_is_not_trusted(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.deployment(behavior=Endless(stage))
    token = stage.key()
    stream = Stream(stage, token)

    def away(*_: Any, **__: Any) -> Any:
        raise DatabaseError("away")

    with monkeypatch.context() as patch:
        patch.setattr(admission, "PATIENCE_S", 1.0)
        patch.setattr(refresher, "read_keys", away)
        patch.setattr(refresher, "advance", away)
        changed = change(stage, token)
        refused = stage.post(CHAT, token, json=GOOD)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        assert "could not be read again" in stream.end()
        assert stream.ended_at - changed < 60  # Long before the deadline of the request.
    wait_until(lambda: not stage.application.gateway.start().parts.refresher.pending)


def test_a_key_that_was_revoked_by_a_host_whose_clock_is_ahead_is_dead_at_once(
    stage: Stage,
) -> None:
    stage.deployment()
    token = stage.key()
    ApiKey.objects.update(revoked_at=timezone.now() + timedelta(minutes=5))
    stage.notify()
    assert stage.post(CHAT, token, json=GOOD).status_code == 401
