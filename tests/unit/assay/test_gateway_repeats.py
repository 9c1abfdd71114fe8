"""`Idempotency-Key`: what was answered is not answered again; what was not may be tried again."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from assay.gateway.run import repeats
from assay.gateway.run.repeats import PREFIX, RETENTION_S
from tests.unit.assay.gateway_support import Stage, stage
from tests.waiting import PATIENCE_S, wait_until
from workers.wire import Delta, Done, Failed

__all__ = ["stage"]

pytestmark = pytest.mark.sweep
CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "Hi"}]
GOOD: dict[str, Any] = {"model": "writer", "messages": HI, "max_tokens": 5}
SAME = {"Idempotency-Key": "order-7"}


def test_what_was_answered_is_not_answered_again(stage: Stage) -> None:
    stage.deployment()
    token = stage.key()
    first = stage.post(CHAT, token, json=GOOD, headers=SAME)
    assert first.status_code == 200
    for body in (GOOD, {**GOOD, "seed": 4, "stream": True}):
        again = stage.post(CHAT, token, json=body, headers=SAME)
        assert again.status_code == 409
        assert again.json()["error"]["code"] == "idempotency_answered"
        assert first.headers["x-request-id"] in again.json()["error"]["message"]
        assert again.headers["x-should-retry"] == "false"
    assert len(stage.responders[0].requests) == 1
    assert [(e.outcome, e.ran, e.cost_micro) for e in stage.entries(3)[1:]] == [
        ("idempotency_answered", False, 0)
    ] * 2
    (name,) = stage.redis.keys(f"{PREFIX}*")
    assert b"order-7" not in name
    assert 0 < stage.redis.ttl(name) <= RETENTION_S


def test_a_key_is_its_owners(stage: Stage) -> None:
    stage.deployment()
    tokens = [stage.key(), stage.key()]
    answers = [stage.post(CHAT, token, json=GOOD, headers=SAME) for token in tokens]
    other = stage.post(CHAT, tokens[0], json=GOOD, headers={"Idempotency-Key": "order-8"})
    assert [each.status_code for each in (*answers, other)] == [200] * 3


def test_no_two_run_at_the_same_time(stage: Stage) -> None:
    let = threading.Event()

    def wait(request: Any, reply: Any) -> None:
        let.wait(PATIENCE_S)
        reply(Delta("Hello", 1))
        reply(Done("stop", 5, 1))

    stage.deployment(behavior=wait)
    token = stage.key()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(stage.post, CHAT, token, json=GOOD, headers=SAME)
        wait_until(lambda: len(stage.responders[0].requests) == 1)
        again = stage.post(CHAT, token, json=GOOD, headers=SAME)
        assert (again.status_code, again.headers["retry-after"]) == (409, "1")
        assert again.json()["error"]["code"] == "idempotency_in_progress"
        assert "x-should-retry" not in again.headers
        let.set()
        assert first.result().status_code == 200
    assert len(stage.responders[0].requests) == 1


def test_a_key_is_its_requests_however_long_that_takes(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_ms = repeats.HELD_S * 1000
    monkeypatch.setattr(repeats, "_RENEWALS", 600)
    let = threading.Event()

    def wait(request: Any, reply: Any) -> None:
        let.wait(PATIENCE_S)
        reply(Done("stop", 5, 1))

    stage.deployment(behavior=wait)
    token = stage.key()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(stage.post, CHAT, token, json=GOOD, headers=SAME)
        wait_until(lambda: len(stage.responders[0].requests) == 1)
        (name,) = stage.redis.keys(f"{PREFIX}*")
        for _ in range(2):
            # As after the pause between two renewals.
            stage.redis.pexpire(name, int(held_ms / 2))
            wait_until(lambda: stage.redis.pttl(name) > held_ms / 2)
            assert stage.redis.pttl(name) <= held_ms
        again = stage.post(CHAT, token, json=GOOD, headers=SAME)
        assert again.json()["error"]["code"] == "idempotency_in_progress"
        let.set()
        assert first.result().status_code == 200


def test_a_request_that_ends_leaves_the_key_of_another_alone(stage: Stage) -> None:
    """As after a pause of the process that outlasted its hold on the key."""
    let = threading.Event()

    def wait(request: Any, reply: Any) -> None:
        let.wait(PATIENCE_S)
        reply(Failed("engine_stopped", "The engine broke."))

    stage.deployment(behavior=wait)
    token = stage.key()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(stage.post, CHAT, token, json=GOOD, headers=SAME)
        wait_until(lambda: len(stage.responders[0].requests) == 1)
        (name,) = stage.redis.keys(f"{PREFIX}*")
        stage.redis.set(name, "req_other", ex=60)
        let.set()
        assert first.result().status_code >= 500
    assert stage.redis.get(name) == b"req_other"
    assert stage.post(CHAT, token, json=GOOD, headers=SAME).status_code == 409


def test_what_was_refused_or_failed_may_be_tried_again(stage: Stage) -> None:
    answers: list[Any] = [Failed("engine_stopped", "The engine broke."), Done("stop", 5, 1)]

    def fail_once(request: Any, reply: Any) -> None:
        reply(answers.pop(0))

    stage.deployment(behavior=fail_once)
    token = stage.key()
    refused = stage.post(CHAT, token, json={**GOOD, "max_tokens": 0}, headers=SAME)
    failed = stage.post(CHAT, token, json=GOOD, headers=SAME)
    right = stage.post(CHAT, token, json=GOOD, headers=SAME)
    again = stage.post(CHAT, token, json=GOOD, headers=SAME)
    statuses = [each.status_code for each in (refused, failed, right, again)]
    assert statuses[0] == 400
    assert statuses[1] >= 500
    assert statuses[2:] == [200, 409]


def test_a_stream_that_breaks_may_be_tried_again(stage: Stage) -> None:
    ends: list[Any] = [Failed("engine_stopped", "The engine broke."), Done("stop", 5, 1)]

    def break_once(request: Any, reply: Any) -> None:
        reply(Delta("Hel", 1))
        reply(ends.pop(0))

    stage.deployment(behavior=break_once)
    client = stage.client(stage.key()).chat.completions
    body: Any = {"model": "writer", "messages": HI, "stream": True, "extra_headers": SAME}
    with pytest.raises(openai.APIError):
        list(client.create(**body))
    list(client.create(**body))
    with pytest.raises(openai.ConflictError):
        list(client.create(**body))


def test_a_caller_who_hung_up_may_ask_again(stage: Stage) -> None:
    let = threading.Event()

    def wait(request: Any, reply: Any) -> None:
        reply(Delta("Hel", 1))
        let.wait(PATIENCE_S)
        reply(Done("stop", 5, 1))

    stage.deployment(behavior=wait)
    headers = {"Authorization": f"Bearer {stage.key()}", **SAME}
    url, body = f"{stage.url}{CHAT}", {**GOOD, "stream": True}
    with httpx.stream("POST", url, json=body, headers=headers) as answer:
        next(answer.iter_lines())
    wait_until(lambda: not stage.redis.keys(f"{PREFIX}*"))
    let.set()
    assert httpx.post(url, json=GOOD, headers=headers).status_code == 200


def test_a_key_must_be_printable_and_is_of_no_meaning_where_nothing_is_sent(stage: Stage) -> None:
    stage.deployment()
    token = stage.key()
    for key in ("", "a b", "a" * 256):
        refused = stage.post(CHAT, token, json=GOOD, headers={"Idempotency-Key": key})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_input")
    headers = {"Authorization": f"Bearer {token}", **SAME}
    for _ in range(2):
        assert httpx.get(f"{stage.url}/v1/models", headers=headers).status_code == 200


def test_a_file_is_stored_once(stage: Stage, settings: Any, tmp_path: Any) -> None:
    settings.DATA_DIR = tmp_path
    files = stage.client(stage.key()).files
    given: Any = {"file": ("a.jsonl", b'{"custom_id": "a"}\n'), "purpose": "batch"}
    made = files.create(**given, extra_headers=SAME)
    with pytest.raises(openai.ConflictError, match="was already answered"):
        files.create(**given, extra_headers=SAME)
    assert [each.id for each in files.list().data] == [made.id]


def test_a_store_that_takes_no_writes_lets_no_request_with_a_key_through(stage: Stage) -> None:
    stage.deployment()
    token = stage.key()
    stage.redis.config_set("maxmemory", "1")
    try:
        refused = stage.post(CHAT, token, json=GOOD, headers=SAME)
    finally:
        stage.redis.config_set("maxmemory", "0")
    assert refused.status_code == 503
    assert stage.post(CHAT, token, json=GOOD, headers=SAME).status_code == 200
