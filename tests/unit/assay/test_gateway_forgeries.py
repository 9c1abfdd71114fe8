"""Whoever reaches the broker, and does not hold the deployment, answers nothing in its name."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.utils import timezone

from assay.gateway.access import refresher
from governance.audit.models import AuditEvent
from governance.usage.collector import collect_once
from tests.unit.assay.gateway_support import (
    DIGEST,
    Reply,
    Responder,
    Stage,
    lasting_heartbeat,
    say_hello,
    stage,
)
from tests.unit.workers.sealed import Wire
from tests.waiting import PATIENCE_S, wait_until
from workers.deployments.models import Deployment, Replica, ReplicaState, WorkerKey
from workers.deployments.worker_keys import worker_key_register
from workers.nodes.models import Node
from workers.wire import Delta, Done, InferenceRequest, encode_events, reply_stream
from workers.wire_keys import WireKey

__all__ = ["stage"]

pytestmark = pytest.mark.sweep

CHAT = "/v1/chat/completions"
GOOD = {"model": "writer", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 10}
LIE = Delta("I am the approved model.", 5)


def plain(stage: Stage, request: InferenceRequest, reply: Reply) -> None:
    """Replies as a stranger writes them who knows the format of before."""
    for event in (LIE, Done("stop", 1, 5)):
        fields: Any = {"id": request.request_id, "event": encode_events([event])}
        stage.redis.xadd(request.reply_stream, fields)


def other_worker(stage: Stage, request: InferenceRequest, reply: Reply) -> None:
    """Replies by a worker of the installation that does not hold the deployment."""
    _, seals = Wire().open(request)
    for event in (LIE, Done("stop", 1, 5)):
        stage.redis.xadd(request.reply_stream, seals.seal(event))


def repeated(stage: Stage, request: InferenceRequest, reply: Reply) -> None:
    """A genuine reply a second time."""
    reply(Delta("Hello", 1))
    wait_until(lambda: stage.redis.xlen(request.reply_stream) == 1)
    ((_, fields),) = stage.redis.xrange(request.reply_stream)
    stage.redis.xadd(request.reply_stream, fields)
    reply(Done("stop", 1, 1))


def after_a_good_beginning(stage: Stage, request: InferenceRequest, reply: Reply) -> None:
    reply(Delta("Hello", 1))
    plain(stage, request, reply)


FORGERIES: tuple[Callable[[Stage, InferenceRequest, Reply], None], ...] = (
    plain,
    other_worker,
    repeated,
    after_a_good_beginning,
)


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
def test_a_forged_reply_is_refused_audited_and_canceled(
    stage: Stage, forge: Callable[[Stage, InferenceRequest, Reply], None]
) -> None:
    stage.deployment(behavior=lambda request, reply: forge(stage, request, reply))
    answer = stage.post(CHAT, stage.key(), json=GOOD)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "reply_forged")
    assert LIE.text not in answer.text
    (entry,) = stage.entries()
    assert (entry.outcome, entry.request_id) == ("reply_forged", answer.headers["x-request-id"])
    wait_until(lambda: stage.responders[0].canceled == [entry.request_id])
    collect_once(stage.redis, consumer="test", block_ms=1)
    event = AuditEvent.objects.get(delivery=entry.request_id)
    assert json.loads(event.canonical)["data"]["outcome"] == "reply_forged"
    assert "did not come from a worker" in event.reason
    metrics = httpx.get(f"{stage.url}/metrics").text
    (line,) = (
        line
        for line in metrics.splitlines()
        if line.startswith("assay_gateway_forged_replies_total")
    )
    assert float(line.split()[1]) >= 1


def test_a_forged_reply_ends_a_stream_with_an_error(stage: Stage) -> None:
    def forge(request: InferenceRequest, reply: Reply) -> None:
        after_a_good_beginning(stage, request, reply)

    stage.deployment(behavior=forge)
    answer = stage.post(CHAT, stage.key(), json={**GOOD, "stream": True})
    assert "reply_forged" in answer.text
    assert LIE.text not in answer.text
    assert "[DONE]" not in answer.text


def test_a_worker_without_a_registered_key_is_sent_nothing(stage: Stage) -> None:
    deployment = stage.deployment(behavior=say_hello)
    token = stage.key()
    worker_key_register(worker=f"responder-{deployment.pk}", public_key="")
    stage.notify()
    assert stage.post(CHAT, token, json=GOOD).status_code == 503
    assert stage.responders[0].requests == []


def test_requests_reach_other_workers_although_one_has_a_bad_key(stage: Stage) -> None:
    deployment = stage.deployment(behavior=say_hello)
    stage.on_node("gpu-1", deployment, say_hello)
    stage.responders[1].stop(wait=True)
    token = stage.key()
    WorkerKey.objects.filter(worker__startswith="gpu-1/").update(public_key="00" * 32)
    stage.notify()
    assert stage.post(CHAT, token, json=GOOD).status_code == 200
    WorkerKey.objects.update(public_key="00" * 32)
    stage.notify()
    answer = stage.post(CHAT, token, json=GOOD)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


def test_a_request_that_reaches_a_restarted_worker_is_sent_back(stage: Stage) -> None:
    """It has a new key. The caller is told to ask again, and waits for no deadline."""
    stage.deployment(behavior=say_hello)
    stage.responders[0].restart()
    answer = stage.post(CHAT, stage.key(), json=GOOD)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


def test_a_request_that_is_sent_back_goes_to_the_worker_that_took_over(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is charged once, and its caller notices nothing."""
    monkeypatch.setattr(refresher, "_HANDOVER_S", PATIENCE_S)
    deployment = stage.deployment(behavior=say_hello)
    token, (responder,) = stage.key(), stage.responders
    responder.restart()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(stage.post, CHAT, token, json=GOOD)
        wait_until(lambda: responder.bounced)
        public_key = responder.seals.public_key
        worker_key_register(worker=f"responder-{deployment.pk}", public_key=public_key)
        stage.notify()
        answer = asked.result()
    assert (answer.status_code, len(responder.requests)) == (200, 1)
    assert [entry.outcome for entry in stage.entries()] == ["ok"]


def test_the_brokers_disk_holds_neither_prompts_nor_answers(stage: Stage) -> None:
    """Requests in the append-only file are sealed."""

    def answer(request: InferenceRequest, reply: Reply) -> None:
        reply(Delta("canary-answer", 2))
        reply(Done("stop", prompt_tokens=5, completion_tokens=2))

    stage.deployment(behavior=answer)
    token = stage.key()
    stage.redis.config_set("appendonly", "yes")
    try:
        # The first file is a compressed snapshot; what comes after it is plain.
        wait_until(lambda: not stage.redis.info("persistence")["aof_rewrite_in_progress"])
        body = {**GOOD, "messages": [{"role": "user", "content": "canary-prompt"}]}
        response = stage.post(CHAT, token, json=body)
        assert "canary-answer" in response.text
        files = Path(str(stage.redis.config_get("dir")["dir"])).rglob("*.aof")
        request_id = response.headers["x-request-id"].encode()
        written = b"".join(file.read_bytes() for file in files)
        assert request_id in written
        assert b"canary" not in written
        assert not any(b"canary" in part for part in decoded(written))
    finally:
        stage.redis.config_set("appendonly", "no")


def decoded(written: bytes) -> list[bytes]:
    """Decode the Base64 that Celery puts in messages."""
    found = re.findall(rb'"body": ?"([A-Za-z0-9+/=]+)"', written)
    assert found
    return [base64.b64decode(part) for part in found]


def test_a_node_answers_on_a_stream_of_its_own_and_hears_cancellations(stage: Stage) -> None:
    deployment = stage.deployment(ready=False, behavior=None)
    realm = stage.on_node("gpu-1", deployment, say_hello)
    headers = {"authorization": f"Bearer {stage.key()}"}
    for _ in range(2):
        answer = httpx.post(f"{stage.url}{CHAT}", json=GOOD, headers=headers)
        assert answer.json()["choices"][0]["message"]["content"] == "Hello there"
    assert stage.redis.keys(f"assay:reply:{realm}/*")
    node = stage.responders[-1]

    def until_canceled(request: InferenceRequest, reply: Reply) -> None:
        reply(Delta("Hel", 1))
        wait_until(lambda: request.request_id in node.canceled)
        reply(Done("canceled", 1, 1))

    node._behavior = until_canceled
    body = {**GOOD, "stream": True}
    with httpx.stream("POST", f"{stage.url}{CHAT}", json=body, headers=headers) as running:
        next(line for line in running.iter_lines() if "Hel" in line)
    wait_until(lambda: [each.request_id for each in node.requests][-1:] == node.canceled)


def test_a_reply_of_a_node_that_has_not_the_request_ends_nothing(stage: Stage) -> None:
    """Gateways tell by the stream which node wrote; only that one can."""
    other = stage.deployment("other", ready=False, behavior=None)
    realm = stage.on_node("gpu-2", other, say_hello)
    _, stranger = Wire(realm).open(
        InferenceRequest("req", other.pk, "other", "d" * 64, "assay:reply:x", {})
    )

    def meddled(request: InferenceRequest, reply: Reply) -> None:
        stream = reply_stream(request.reply_stream, realm)
        for fields in (stranger.seal(LIE), {"event": b"x"}, {"bounce": b"0" * 32}):
            entry: Any = {**fields, "id": request.request_id}
            stage.redis.xadd(stream, entry)
        say_hello(request, reply)

    deployment = stage.deployment(ready=False, behavior=None)
    stage.on_node("gpu-1", deployment, meddled)
    headers = {"authorization": f"Bearer {stage.key()}"}
    # The gateway reads the other node's stream, too.
    body = {**GOOD, "model": "other"}
    assert httpx.post(f"{stage.url}{CHAT}", json=body, headers=headers).status_code == 200
    answer = httpx.post(f"{stage.url}{CHAT}", json=GOOD, headers=headers)
    assert answer.json()["choices"][0]["message"]["content"] == "Hello there"


def test_a_node_that_never_had_a_request_cannot_send_it_back(stage: Stage) -> None:
    """The next snapshot tells that the deployment is not there."""
    other = stage.deployment("other", ready=False, behavior=None)
    realm = stage.on_node("gpu-2", other, say_hello)
    key = WireKey(settings.WIRE_KEY).of(realm)

    def meddled(request: InferenceRequest, reply: Reply) -> None:
        fields: Any = {
            "id": request.request_id,
            "bounce": key.bounce_mac(request.request_id, request.reply_stream),
        }
        stage.redis.xadd(reply_stream(request.reply_stream, realm), fields)
        expected = stage.application.gateway.start().parts.replies._expected[request.request_id]
        wait_until(lambda: realm in expected.early)
        stage.notify()
        assert not expected.early
        say_hello(request, reply)

    stage.deployment(behavior=meddled)
    headers = {"authorization": f"Bearer {stage.key()}"}
    body = {**GOOD, "model": "other"}
    assert httpx.post(f"{stage.url}{CHAT}", json=body, headers=headers).status_code == 200
    answer = httpx.post(f"{stage.url}{CHAT}", json=GOOD, headers=headers, timeout=PATIENCE_S)
    assert answer.json()["choices"][0]["message"]["content"] == "Hello there"


def test_a_node_that_the_gateway_does_not_know_yet_hands_a_request_over(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresher, "_HANDOVER_S", PATIENCE_S)
    deployment = stage.deployment(behavior=None)
    Node.objects.create(
        name="gpu-1", state="enrolled", public_key="5" * 64, created_by=stage.person
    )
    new = Responder(deployment.pk, say_hello, Node.objects.get().realm)
    stage.responders.append(new)
    check_hand_over(stage, deployment, new)


def test_a_node_whose_stream_is_read_already_hands_a_request_over(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers for another deployment, and has this one since the newest snapshot."""
    monkeypatch.setattr(refresher, "_HANDOVER_S", PATIENCE_S)
    other = stage.deployment("other", ready=False, behavior=None)
    realm = stage.on_node("gpu-1", other, say_hello)
    headers = {"authorization": f"Bearer {stage.key()}"}
    body = {**GOOD, "model": "other"}
    assert httpx.post(f"{stage.url}{CHAT}", json=body, headers=headers).status_code == 200
    deployment = stage.deployment(behavior=None)
    new = Responder(deployment.pk, say_hello, realm)
    stage.responders.append(new)
    check_hand_over(stage, deployment, new)


def test_a_silent_node_that_is_placed_gives_a_request_back(stage: Stage) -> None:
    """Its connection to the broker works alone; the caller waits for no deadline."""
    deployment = stage.deployment(behavior=None)
    realm = stage.on_node("gpu-1", deployment, say_hello)
    node = stage.responders[-1]
    assert node.seals.address.startswith(realm)
    long_ago = timezone.now() - timedelta(minutes=5)
    Replica.objects.filter(worker__startswith="gpu-1/").update(heartbeat_at=long_ago)
    stage.notify()
    answer = stage.post(CHAT, stage.key(), json=GOOD)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    wait_until(lambda: node.bounced == 1)


def check_hand_over(stage: Stage, deployment: Deployment, new: Responder) -> None:
    headers = {"authorization": f"Bearer {stage.key()}"}

    def ask() -> Any:
        return httpx.post(f"{stage.url}{CHAT}", json=GOOD, headers=headers, timeout=PATIENCE_S)

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)
        wait_until(lambda: new.bounced == 1)
        Replica.objects.create(
            deployment=deployment,
            worker="gpu-1/engine@a",
            state=ReplicaState.READY,
            loaded_digest=DIGEST,
            heartbeat_at=lasting_heartbeat(),
        )
        worker_key_register(worker="gpu-1/engine@a", public_key=new.seals.public_key)
        stage.notify()
        answer = asked.result()
    assert answer.json()["choices"][0]["message"]["content"] == "Hello there"
