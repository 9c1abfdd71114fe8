"""Quotas, disconnects, deadlines, failures: every request is settled exactly once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from django.utils import timezone

from assay.gateway.access import refresher
from assay.gateway.access.refresher import LOOKUPS_PER_S
from assay.gateway.run import execution
from assay.gateway.run.reply_streams import Cut, Inbox
from assay.gateway.run.time_limits import TimeLimits, Timer
from governance.keys.models import ApiKey
from governance.keys.notices import key_notice
from governance.keys.tokens import format_token, mint
from governance.quotas.models import Price, QuotaLimit
from governance.quotas.store import read_counts
from governance.usage.records import USAGE_STREAM
from tests.unit.assay.gateway_support import Reply, Stage, say_hello, stage
from tests.waiting import PATIENCE_S, wait_until
from workers.deployments.models import Deployment
from workers.wire import (
    SNAPSHOT_CHANNEL,
    Delta,
    Done,
    Failed,
    InferenceRequest,
    deployment_queue,
)

pytestmark = pytest.mark.sweep

__all__ = ["stage"]

CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "Hi"}]
GOOD: dict[str, Any] = {"model": "writer", "messages": HI, "max_tokens": 10}
RESERVATIONS = "assay:quota:reservation:*"


def tokens_today(subject: str) -> tuple[int, int]:
    """Used and reserved."""
    (count,) = read_counts([(subject, "tokens_per_day")]).counts
    return count.used, count.reserved


def test_of_twenty_at_once_exactly_as_many_pass_as_the_quota_says(stage: Stage) -> None:
    stage.deployment()
    stage.limit("requests_per_minute", 7)
    token = stage.key()
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: stage.post(CHAT, token, json=GOOD), range(20)))
    assert Counter(a.status_code for a in answers) == {200: 7, 429: 13}
    refused = next(a for a in answers if a.status_code == 429)
    assert refused.json()["error"]["code"] == "quota_exceeded"
    assert "Department engineering is limited to 7 requests per minute" in refused.text
    assert int(refused.headers["retry-after"]) > 0
    assert refused.headers["x-ratelimit-limit-requests"] == "7"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    outcomes = Counter(entry.outcome for entry in stage.entries(20))
    assert outcomes == {"ok": 7, "quota_exceeded": 13}


def test_tokens_are_reserved_first_and_then_only_what_was_used_counts(stage: Stage) -> None:
    stage.deployment()
    stage.limit("tokens_per_minute", 100)
    stage.limit("tokens_per_day", 1000)
    token = stage.key()
    for used in (8, 16, 24):
        answer = stage.post(CHAT, token, json={**GOOD, "max_tokens": 60})
        assert answer.status_code == 200, used
    assert answer.headers["x-ratelimit-limit-tokens"] == "100"
    too_much = stage.post(CHAT, token, json={**GOOD, "max_tokens": 90})
    assert too_much.status_code == 429
    never = stage.post(CHAT, token, json={**GOOD, "max_tokens": 101})
    assert "never fits" in never.text
    assert never.headers["x-should-retry"] == "false"
    assert tokens_today("department:engineering") == (24, 0)
    assert stage.redis.keys(RESERVATIONS) == []


def test_a_spent_day_is_not_worth_an_automatic_retry(stage: Stage) -> None:
    stage.deployment()
    stage.limit("tokens_per_day", 12)
    token = stage.key()
    client = openai.OpenAI(api_key=token, base_url=f"{stage.url}/v1", max_retries=2)
    client.chat.completions.create(model="writer", messages=HI, max_tokens=10)
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(model="writer", messages=HI, max_tokens=10)
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert [entry.outcome for entry in stage.entries(2)] == ["ok", "quota_exceeded"]


def test_every_subject_has_limits_and_the_answer_names_the_one_that_stopped(stage: Stage) -> None:
    def cost_device_time(request: InferenceRequest, reply: Reply) -> None:
        reply(Done("stop", prompt_tokens=5, completion_tokens=3, device_ms=40))

    stage.deployment(behavior=cost_device_time)
    Price.objects.create(deployment="writer", prompt=10**6, completion=2 * 10**6, device_second=500)
    everyone: dict[str, Any] = {"department": None}
    QuotaLimit.objects.create(kind="money_per_month", limit=60, **everyone)
    QuotaLimit.objects.create(kind="gpu_seconds_per_month", limit=3, deployment="writer")
    stage.limit("tokens_per_day", 1, shadow=True)
    token = stage.key()
    assert stage.post(CHAT, token, json=GOOD).status_code == 200
    (entry,) = stage.entries()
    assert (entry.device_ms, entry.cost_micro) == (40, 5 + 6 + 20)
    assert entry.shadowed == ["department:engineering tokens_per_day"]
    refused = stage.post(CHAT, token, json={**GOOD, "max_tokens": 20})
    assert refused.status_code == 429
    assert refused.headers["x-should-retry"] == "false"
    assert refused.headers["x-assay-limit"] == "organization money_per_month"
    assert "The organization is limited to 0.00006 EUR per month" in refused.text
    assert stage.entries(2)[1].limit == "organization money_per_month"
    counts = read_counts(
        [("organization", "money_per_month"), ("deployment:writer", "gpu_seconds_per_month")]
    ).counts
    assert [(count.used, count.reserved) for count in counts] == [(31, 0), (40, 0)]


def test_after_a_flush_a_budget_is_refused_until_the_ledger_has_told_what_is_spent(
    stage: Stage,
) -> None:
    stage.deployment()
    stage.limit("tokens_per_day", 1000)
    token = stage.key()
    stage.redis.flushall()
    refused = stage.post(CHAT, token, json=GOOD)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert "rebuilt from the ledger" in refused.text


def test_slots_for_simultaneous_requests_come_free_again(stage: Stage) -> None:
    release = threading.Event()

    def wait(request: InferenceRequest, reply: Reply) -> None:
        release.wait(PATIENCE_S)
        say_hello(request, reply)

    stage.deployment(behavior=wait)
    stage.limit("concurrent_requests", 2)
    token = stage.key()
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(stage.post, CHAT, token, json=GOOD) for _ in range(2)]
        wait_until(lambda: len(stage.responders[0].requests) == 2)
        assert stage.post(CHAT, token, json=GOOD).status_code == 429
        release.set()
        assert [future.result().status_code for future in running] == [200, 200]
    assert stage.post(CHAT, token, json=GOOD).status_code == 200


def test_a_client_that_hangs_up_cancels_the_work_and_is_settled_once(stage: Stage) -> None:
    def until_canceled(request: InferenceRequest, reply: Reply) -> None:
        reply(Delta("One", 1))
        reply(Delta(" two", 1))
        wait_until(lambda: request.request_id in stage.responders[0].canceled)
        reply(Done("canceled", prompt_tokens=5, completion_tokens=4))

    stage.deployment(behavior=until_canceled)
    stage.limit("tokens_per_day", 1000)
    stage.limit("concurrent_requests", 1)
    headers = {"authorization": f"Bearer {stage.key()}"}
    body = {**GOOD, "stream": True}
    with httpx.stream("POST", f"{stage.url}{CHAT}", json=body, headers=headers) as response:
        next(line for line in response.iter_lines() if "One" in line)
    (entry,) = stage.entries()
    assert (entry.outcome, entry.ran) == ("canceled", True)
    assert (entry.prompt_tokens, entry.completion_tokens) == (5, 4)
    assert stage.responders[0].canceled == [entry.request_id]
    assert tokens_today("department:engineering") == (9, 0)
    assert stage.redis.keys("assay:quota:concurrent_requests:*") == []
    assert stage.redis.keys(RESERVATIONS) == []
    assert stage.redis.xlen(USAGE_STREAM) == 1


def test_a_worker_that_stays_silent_runs_into_the_deadline(
    stage: Stage, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.GATEWAY_REQUEST_TIMEOUT_S = 1
    monkeypatch.setattr(execution, "_LAST_WORD_S", 2.0)
    stage.deployment(behavior=lambda request, reply: None)
    response = stage.post(CHAT, stage.key(), json=GOOD)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
    (entry,) = stage.entries()
    assert (entry.outcome, entry.request_id) == ("failed", response.headers["x-request-id"])
    wait_until(lambda: stage.responders[0].canceled == [entry.request_id])


def test_a_stream_that_pauses_for_too_long_ends_with_an_error_and_is_charged(stage: Stage) -> None:
    def pause(request: InferenceRequest, reply: Reply) -> None:
        reply(Delta("Hel", 1))
        wait_until(lambda: request.request_id in stage.responders[0].canceled)
        reply(Done("canceled", prompt_tokens=5, completion_tokens=1))

    stage.deployment(behavior=pause)
    Deployment.objects.update(stream_idle_s=1, stream_total_s=1800)
    stage.notify()
    stream = stage.client(stage.key()).chat.completions.create(
        model="writer", messages=HI, stream=True
    )
    with pytest.raises(openai.APIError, match="sent no token for 1 s") as ended:
        list(stream)
    assert ended.value.code == "stream_paused"
    (entry,) = stage.entries()
    assert (entry.outcome, entry.prompt_tokens, entry.completion_tokens) == ("failed", 5, 1)
    (request,) = stage.responders[0].requests
    assert request.idle_s == 1
    assert request.deadline - request.enqueued_at > 1700


@pytest.mark.parametrize(
    ("limits", "tokens", "message", "code"),
    [
        (TimeLimits(3600, 0.05, 3600), 0, "did not answer within 0.05 s", "timeout"),
        (TimeLimits(3600, 3600, 0.05), 1, "sent no token for 0.05 s", "stream_paused"),
        (TimeLimits(0.05, 0.05, 3600), 1, "took longer than 0.05 s", "timeout"),
    ],
)
def test_the_first_limit_that_passes_ends_an_answer(
    limits: TimeLimits, tokens: int, message: str, code: str
) -> None:
    async def ended() -> Any:
        inbox: Inbox = asyncio.Queue()
        timer = Timer(limits, "writer", inbox)
        for _ in range(tokens):
            timer.token()
        return await inbox.get()

    cut = asyncio.run(ended())
    assert isinstance(cut, Cut)
    assert (message in cut.error.message, cut.error.code, cut.error.status) == (True, code, 504)


def test_a_failure_inside_a_stream_is_an_event_of_it(stage: Stage) -> None:
    def break_down(request: InferenceRequest, reply: Reply) -> None:
        reply(Delta("Hel", 1))
        wait_until(started.is_set)
        reply(Failed("engine_failed", "The engine broke down.", 500))

    started = threading.Event()
    stage.deployment(behavior=break_down)
    stream = stage.client(stage.key()).chat.completions.create(
        model="writer", messages=HI, stream=True
    )
    seen = []

    def read() -> None:
        for chunk in stream:
            seen.append(chunk.choices[0].delta.content)
            started.set()

    with pytest.raises(openai.APIError, match="The engine broke down"):
        read()
    assert "".join(filter(None, seen)) == "Hel"
    (entry,) = stage.entries()
    assert (entry.outcome, entry.completion_tokens) == ("failed", 1)


def test_a_stream_that_waits_is_kept_alive(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(request: InferenceRequest, reply: Reply) -> None:
        wait_until(heard.is_set)
        say_hello(request, reply)

    heard = threading.Event()
    monkeypatch.setattr(execution, "KEEPALIVE_S", 0.02)
    stage.deployment(behavior=wait)
    headers = {"authorization": f"Bearer {stage.key()}"}
    body = {**GOOD, "stream": True}
    with httpx.stream("POST", f"{stage.url}{CHAT}", json=body, headers=headers) as response:
        lines = response.iter_lines()
        assert next(line for line in lines if line.startswith(":")) == ": keepalive"
        heard.set()
        assert list(lines)[-2] == "data: [DONE]"


def test_one_bad_entry_on_the_reply_stream_costs_no_other_request_its_answer(
    stage: Stage,
) -> None:
    def stutter(request: InferenceRequest, reply: Reply) -> None:
        for event in (b"{", b'{"type":"unknown"}', b"[]"):
            stage.redis.xadd(request.reply_stream, {"id": "req_other", "event": event})
        stage.redis.xadd(request.reply_stream, {"nothing": "at all"})
        say_hello(request, reply)

    stage.deployment(behavior=stutter)
    assert stage.post(CHAT, stage.key(), json=GOOD).status_code == 200


def test_a_store_that_takes_no_writes_lets_no_request_through(stage: Stage) -> None:
    deployment = stage.deployment(behavior=None)
    stage.limit("requests_per_minute", 5)
    token = stage.key()
    stage.redis.config_set("maxmemory", 1)
    try:
        refused = stage.post(CHAT, token, json=GOOD)
    finally:
        stage.redis.config_set("maxmemory", 0)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    assert "retry-after" in refused.headers
    stage.respond(deployment, say_hello)
    assert stage.post(CHAT, token, json=GOOD).status_code == 200
    assert len(stage.responders[0].requests) == 1


def test_a_request_that_the_broker_does_not_take_costs_nothing(stage: Stage) -> None:
    deployment = stage.deployment(behavior=None)
    stage.limit("requests_per_minute", 1)
    token = stage.key()
    # Of the wrong type, so that the broker refuses to push on it.
    stage.redis.set(deployment_queue(deployment.pk), "not a list")
    refused = stage.post(CHAT, token, json=GOOD)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    (entry,) = stage.entries()
    assert (entry.ran, entry.outcome) == (False, "unavailable")
    stage.redis.delete(deployment_queue(deployment.pk))
    stage.respond(deployment, say_hello)
    assert stage.post(CHAT, token, json=GOOD).status_code == 200


def test_a_request_beyond_the_queues_bound_is_refused_and_costs_nothing(
    stage: Stage, settings: Any
) -> None:
    deployment = stage.deployment(behavior=None)
    stage.limit("requests_per_minute", 2)
    token, queue = stage.key(), deployment_queue(deployment.pk)
    settings.GATEWAY_QUEUE_MAX = 1
    # Of an expired request, which nobody answers any more.
    stage.redis.lpush(queue, "waiting")
    for _ in range(3):
        refused = stage.post(CHAT, token, json=GOOD)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "queue_full")
        assert refused.headers["retry-after"] == "5"
    assert stage.redis.lrange(queue, 0, -1) == [b"waiting"]
    assert {(entry.ran, entry.outcome) for entry in stage.entries(3)} == {(False, "queue_full")}
    stage.redis.delete(queue)
    stage.respond(deployment, say_hello)
    assert stage.post(CHAT, token, json=GOOD).status_code == 200


def test_a_request_that_a_limit_stops_reaches_no_queue(stage: Stage) -> None:
    deployment = stage.deployment(behavior=None)
    stage.limit("tokens_per_minute", 1)
    assert stage.post(CHAT, stage.key(), json=GOOD).status_code == 429
    assert stage.redis.exists(deployment_queue(deployment.pk)) == 0


def test_a_key_works_the_moment_it_is_made(stage: Stage) -> None:
    stage.deployment()
    for _ in range(5):
        token = stage.key(notify=False)
        headers = {"authorization": f"Bearer {token}"}
        assert httpx.get(f"{stage.url}/v1/models", headers=headers).status_code == 200


def test_a_notice_of_one_key_has_that_key_read_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = stage.key()
    public_id = token.split("_")[1]
    headers = {"authorization": f"Bearer {token}"}
    assert httpx.get(f"{stage.url}/v1/models", headers=headers).status_code == 200
    asked: list[str] = []
    read = refresher.read_keys
    monkeypatch.setattr(
        refresher, "read_keys", lambda limits, ids: (asked.extend(ids), read(limits, ids))[1]
    )
    ApiKey.objects.filter(public_id=public_id).update(revoked_at=timezone.now())
    stage.redis.publish(SNAPSHOT_CHANNEL, key_notice(public_id))
    wait_until(lambda: httpx.get(f"{stage.url}/v1/models", headers=headers).status_code == 401)
    assert set(asked) == {public_id}


def test_guessed_keys_cannot_keep_the_database_busy(stage: Stage) -> None:
    good = stage.key()
    asked: list[str] = []
    read = refresher.read_keys
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            refresher, "read_keys", lambda limits, ids: (asked.extend(ids), read(limits, ids))[1]
        )
        started = time.monotonic()
        for _ in range(60):
            headers = {"authorization": f"Bearer {format_token(*mint())}"}
            assert httpx.get(f"{stage.url}/v1/models", headers=headers).status_code == 401
        # A key that exists is read for its first request all the same.
        headers = {"authorization": f"Bearer {good}"}
        assert httpx.get(f"{stage.url}/v1/models", headers=headers).status_code == 200
    assert 1 < len(asked) <= 1 + LOOKUPS_PER_S * (2 + int(time.monotonic() - started))
