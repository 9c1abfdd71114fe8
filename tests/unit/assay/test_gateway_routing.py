"""Targets of a deployment: the choice, fallback, the circuit breaker, and shadows."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest
from django.utils import timezone

from assay.gateway.run import breakers, execution, fallback, pace
from assay.gateway.run.breakers import Breakers, RetryBudget
from assay.gateway.run.pace import Paces
from assay.portal.waterfall import waterfall
from governance.people.models import Department
from governance.quotas.store import read_counts
from governance.request_log.schemas import RequestFilter
from governance.request_log.selectors import failed_attempts, requests_page
from governance.usage.collector import collect_once
from governance.usage.models import UsageRecord
from governance.usage.records import UsageEntry
from registry.releases.models import Release, ReleaseState
from registry.responses.models import ResponseRetention
from tests.people import make_person
from tests.proofs import proven
from tests.unit.assay.gateway_support import Behavior, Reply, Stage, say_hello, stage
from tests.unit.assay.test_gateway_media import picture
from tests.waiting import wait_until
from workers.deployments.models import Deployment, DeploymentState, ServingLease
from workers.wire import Delta, Done, Failed, InferenceRequest, deployment_queue

pytestmark = pytest.mark.sweep

__all__ = ["stage"]

CHAT = "/v1/chat/completions"
HI: Any = [{"role": "user", "content": "Hi"}]
GOOD: dict[str, Any] = {"model": "writer", "messages": HI, "max_tokens": 10}


def saying(text: str) -> Behavior:
    def say(request: InferenceRequest, reply: Reply) -> None:
        reply(Delta(text, 1))
        reply(Done("stop", prompt_tokens=5, completion_tokens=1))

    return say


def failing(code: str, status: int, **changes: Any) -> Behavior:
    def fail(request: InferenceRequest, reply: Reply) -> None:
        reply(Failed(code, "It failed.", status, **changes))

    return fail


def target(
    stage: Stage, primary: Deployment, role: str, behavior: Behavior, **columns: Any
) -> Deployment:
    release = columns.pop("release", {})
    position = columns.pop("position", primary.targets.count() + 1)
    own = {"target_of": primary, "role": role, "position": position, **columns}
    return stage.deployment("writer", behavior=behavior, target=own, **release)


def text_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def tokens_today() -> tuple[int, int]:
    (count,) = read_counts([("department:engineering", "tokens_per_day")]).counts
    return count.used, count.reserved


def test_a_user_stays_with_the_canary_and_shares_come_true(stage: Stage) -> None:
    primary = stage.deployment(behavior=saying("stable"))
    canary = target(stage, primary, "canary", saying("canary"), weight=30)
    token = stage.key()
    answers = Counter(
        text_of(stage.post(CHAT, token, json={**GOOD, "user": f"user-{number}"}))
        for number in range(40)
    )
    assert answers["canary"] + answers["stable"] == 40
    assert 3 <= answers["canary"] <= 22
    same = [stage.post(CHAT, token, json={**GOOD, "user": "user-1"}) for _ in range(5)]
    assert len({text_of(each) for each in same}) == 1
    Deployment.objects.filter(pk=canary.pk).update(weight=100)
    stage.notify()
    answer = stage.post(CHAT, token, json=GOOD)
    assert text_of(answer) == "canary"
    assert answer.headers["x-assay-release"] == str(canary.release_id)
    assert answer.headers["x-assay-served-by"] == f"canary; deployment={canary.pk}"
    entry = stage.entries(46)[-1]
    assert (entry.release, entry.version_digest) == (
        canary.release_id,
        canary.release.version.digest,
    )
    assert entry.route == {"role": "canary", "deployment": canary.pk}
    assert entry.decision["resource"]["id"] == str(canary.pk)


def test_a_canary_whose_release_expires_or_is_recalled_leaves_the_choice(stage: Stage) -> None:
    primary = stage.deployment(behavior=saying("stable"))
    canary = target(stage, primary, "canary", saying("canary"), weight=100)
    token = stage.key()
    assert text_of(stage.post(CHAT, token, json=GOOD)) == "canary"
    Release.objects.filter(pk=canary.release_id).update(
        expires_at=timezone.now() - timedelta(seconds=1)
    )
    stage.notify()
    assert text_of(stage.post(CHAT, token, json=GOOD)) == "stable"
    Release.objects.filter(pk=canary.release_id).update(
        expires_at=timezone.now() + timedelta(days=1)
    )
    stage.notify()
    assert text_of(stage.post(CHAT, token, json=GOOD)) == "canary"
    Release.objects.filter(pk=canary.release_id).update(state=ReleaseState.RECALLED)
    stage.notify()
    assert text_of(stage.post(CHAT, token, json=GOOD)) == "stable"


def recall(release_id: int) -> None:
    Release.objects.filter(pk=release_id).update(state=ReleaseState.RECALLED)


def expire(release_id: int) -> None:
    Release.objects.filter(pk=release_id).update(expires_at=timezone.now())


@pytest.mark.parametrize("end", [recall, expire])
def test_a_request_that_runs_on_an_ended_canary_is_ended(
    stage: Stage, end: Callable[[int], None]
) -> None:
    goes_on = threading.Event()

    def begin(request: InferenceRequest, reply: Reply) -> None:
        reply(Delta("Hel", 1))
        wait_until(goes_on.is_set)
        reply(Done("canceled", prompt_tokens=5, completion_tokens=1))

    primary = stage.deployment(behavior=saying("stable"))
    canary = target(stage, primary, "canary", begin, weight=100)
    stream = stage.client(stage.key()).chat.completions.create(
        model="writer", messages=HI, stream=True
    )
    next(iter(stream))
    end(canary.release_id)
    stage.notify()
    with pytest.raises(openai.APIError, match=r"may not serve|expired"):
        list(stream)
    goes_on.set()
    (entry,) = stage.entries()
    assert (entry.outcome, entry.release) == ("canceled", canary.release_id)


def test_each_target_needs_its_own_lease(stage: Stage) -> None:
    primary = stage.deployment(behavior=saying("stable"))
    canary = target(stage, primary, "canary", saying("canary"), weight=100)
    token = stage.key()
    ServingLease.objects.filter(deployment=canary).update(
        servable_until=timezone.now() - timedelta(seconds=1)
    )
    stage.notify()
    assert text_of(stage.post(CHAT, token, json=GOOD)) == "stable"


def test_conditions_decide_who_gets_a_target(stage: Stage) -> None:
    both = ("engineering", "research")
    primary = stage.deployment(behavior=saying("common"), departments=both)
    target(
        stage,
        primary,
        "serve",
        saying("of research"),
        weight=100,
        routing_conditions={"departments": ["research"]},
        release={"departments": both},
    )
    target(
        stage,
        primary,
        "serve",
        saying("long"),
        weight=100,
        routing_conditions={"prompt_tokens_min": 300, "endpoints": [CHAT]},
        release={"departments": both},
    )
    ours, theirs = stage.key(), stage.key("research")
    long = {**GOOD, "messages": [{"role": "user", "content": "word " * 400}]}
    assert text_of(stage.post(CHAT, ours, json=GOOD)) == "common"
    assert text_of(stage.post(CHAT, theirs, json=GOOD)) == "of research"
    assert text_of(stage.post(CHAT, ours, json=long)) == "long"


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("code", "status"),
    [("engine_failed", 500), ("rate_limited", 429), ("credential_unavailable", 503)],
)
def test_a_failure_before_the_first_byte_goes_to_the_fallback(
    stage: Stage, code: str, status: int, *, streamed: bool
) -> None:
    primary = stage.deployment(behavior=failing(code, status))
    fallback = target(stage, primary, "fallback", say_hello)
    stage.limit("tokens_per_day", 1000)
    stage.limit("concurrent_requests", 1)
    answer = stage.post(CHAT, stage.key(), json={**GOOD, "stream": streamed})
    assert answer.status_code == 200
    assert "Hello" in answer.text
    assert "error" not in answer.text
    assert answer.headers["x-assay-release"] == str(fallback.release_id)
    assert answer.headers["x-assay-served-by"] == (
        f"fallback; deployment={fallback.pk}; after={code}; attempts=2"
    )
    by_id = {entry.request_id: entry for entry in stage.entries(2)}
    own = by_id.pop(answer.headers["x-request-id"])
    assert (own.outcome, own.release, own.units) == ("ok", fallback.release_id, 8)
    assert own.route["after"] == [
        {"deployment": primary.pk, "release": primary.release_id, "code": code}
    ]
    ((name, attempt),) = by_id.items()
    assert name == f"{own.request_id}.failed"
    assert (attempt.outcome, attempt.release, attempt.units) == ("failed", primary.release_id, 0)
    assert attempt.part_of == own.request_id
    assert tokens_today() == (8, 0)
    assert stage.redis.keys("assay:quota:reservation:*") == []


def test_a_refusal_of_the_request_itself_goes_to_no_fallback(stage: Stage) -> None:
    primary = stage.deployment(behavior=failing("context_length_exceeded", 400))
    target(stage, primary, "fallback", say_hello)
    answer = stage.post(CHAT, stage.key(), json=GOOD)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert not stage.responders[1].requests


def test_what_a_failed_attempt_used_is_charged_once_to_its_own_release(stage: Stage) -> None:
    used = {"prompt_tokens": 7, "completion_tokens": 2, "units": 9}
    primary = stage.deployment(behavior=failing("provider_failed", 502, **used))
    target(stage, primary, "fallback", say_hello)
    stage.limit("tokens_per_day", 1000)
    assert stage.post(CHAT, stage.key(), json=GOOD).status_code == 200
    by_release = Counter[int | None]()
    for entry in stage.entries(2):
        by_release[entry.release] += entry.units
    assert by_release[primary.release_id] == 9
    assert tokens_today() == (17, 0)


def test_what_a_failed_attempt_had_computed_is_charged_without_a_report(stage: Stage) -> None:
    def break_down(request: InferenceRequest, reply: Reply) -> None:
        reply(Delta("Hel", 3))
        reply(Failed("worker_lost", "The worker is gone.", 502))

    primary = stage.deployment(behavior=break_down)
    target(stage, primary, "fallback", saying("whole"))
    stage.limit("tokens_per_day", 1000)
    assert text_of(stage.post(CHAT, stage.key(), json=GOOD)) == "whole"
    entries = {entry.release: entry for entry in stage.entries(2)}
    failed = entries[primary.release_id]
    assert (failed.outcome, failed.completion_tokens) == ("failed", 3)
    assert failed.prompt_tokens > 0
    assert tokens_today() == (sum(entry.units for entry in entries.values()), 0)


@pytest.mark.parametrize(
    "used", [{}, {"prompt_tokens": 7, "completion_tokens": 2, "units": 9}], ids=["none", "reported"]
)
def test_a_failure_after_the_first_byte_ends_the_stream_with_an_error(
    stage: Stage, used: dict[str, int]
) -> None:
    started = threading.Event()

    def break_down(request: InferenceRequest, reply: Reply) -> None:
        reply(Delta("Hel", 1))
        wait_until(started.is_set)
        reply(Failed("worker_lost", "The worker is gone.", 502, **used))

    primary = stage.deployment(behavior=break_down)
    target(stage, primary, "fallback", say_hello)
    stage.limit("tokens_per_day", 1000)
    seen = []

    def read() -> None:
        stream: Any = stage.client(stage.key()).chat.completions.create(
            model="writer", messages=HI, stream=True
        )
        for chunk in stream:
            seen.append(chunk.choices[0].delta.content)
            started.set()

    with pytest.raises(openai.APIError, match="The worker is gone"):
        read()
    assert "".join(filter(None, seen)) == "Hel"
    (entry,) = stage.entries()
    assert (entry.outcome, entry.completion_tokens) == ("failed", 2 if used else 1)
    assert not used or entry.units == 9
    assert not stage.responders[1].requests
    assert tokens_today()[0] == entry.units


def test_a_fallback_that_the_policy_refuses_to_this_key_is_never_used(stage: Stage) -> None:
    primary = stage.deployment(
        behavior=failing("engine_failed", 500), departments=("engineering", "research")
    )
    target(stage, primary, "fallback", say_hello, release={"departments": ("engineering",)})
    answer = stage.post(CHAT, stage.key("research"), json=GOOD)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "engine_failed")
    assert not stage.responders[1].requests
    assert stage.post(CHAT, stage.key(), json=GOOD).status_code == 200


def test_targets_give_nobody_access_to_a_name(stage: Stage) -> None:
    primary = stage.deployment(behavior=say_hello)
    target(
        stage,
        primary,
        "serve",
        say_hello,
        weight=100,
        release={"departments": ("engineering", "research")},
    )
    answer = stage.post(CHAT, stage.key("research"), json=GOOD)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


def test_conditions_of_the_release_that_answers_apply(stage: Stage) -> None:
    primary = stage.deployment(behavior=failing("engine_failed", 500))
    limited = {"conditions": {"requests_per_minute": 1}}
    target(stage, primary, "fallback", say_hello, release=limited)
    token = stage.key()
    assert stage.post(CHAT, token, json=GOOD).status_code == 200
    # The second attempt is stopped by the condition, so that the first failure is the answer.
    second = stage.post(CHAT, token, json=GOOD)
    assert second.status_code == 500
    assert len(stage.responders[1].requests) == 1
    assert stage.redis.keys("assay:quota:reservation:*") == []


def test_a_request_that_no_fallback_takes_is_that_of_the_target_that_failed(stage: Stage) -> None:
    def break_down(request: InferenceRequest, reply: Reply) -> None:
        reply(Delta("Hel", 2))
        reply(Failed("engine_failed", "It failed.", 500))

    primary = stage.deployment(behavior=break_down)
    limited = {"conditions": {"requests_per_minute": 1}}
    spare = target(stage, primary, "fallback", say_hello, release=limited)
    token = stage.key()
    assert stage.post(CHAT, token, json=GOOD).status_code == 200
    assert stage.post(CHAT, token, json=GOOD).status_code == 500
    *_, entry = stage.entries(3)
    assert (entry.release, entry.completion_tokens) == (primary.release_id, 2)
    assert entry.route["deployment"] == primary.pk
    paces = stage.application.gateway.start().parts.paces
    for _ in range(pace.LEAST):
        paces.begin(spare.pk, "engineering")
        paces.end(spare.pk, "engineering", answered=True)
    assert paces.expected_s(spare.pk, "engineering") == 0.0


def test_an_image_that_a_full_queue_refuses_goes_to_the_fallback(
    stage: Stage, settings: Any
) -> None:
    def answer(request: InferenceRequest, reply: Reply) -> None:
        reply(Done("stop", 0, 0, results=[[0.5]], units=1))

    task = "zero-shot-image-classification"
    primary = stage.deployment("clip", task=task, behavior=None)
    own = {"target_of": primary, "role": "fallback", "position": 1}
    stage.deployment("clip", task=task, behavior=answer, target=own)
    stage.limit("requests_per_minute", 100)
    settings.GATEWAY_QUEUE_MAX = 1
    stage.redis.lpush(deployment_queue(primary.pk), "waiting")
    url = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"
    body = {"model": "clip", "input": {"image": url}}
    reply = stage.post("/v1/embeddings", stage.key(), json=body)
    assert reply.status_code == 200, reply.text
    assert reply.headers["x-assay-served-by"].endswith("after=queue_full; attempts=2")
    assert stage.redis.keys("assay:quota:reservation:*") == []


def test_targets_of_an_ended_primary_answer_for_no_other_one(stage: Stage) -> None:
    former = stage.deployment(behavior=saying("former"))
    target(stage, former, "serve", saying("of the former"), weight=100)
    Deployment.objects.filter(pk=former.pk).update(state=DeploymentState.REFUSED)
    stage.deployment(behavior=saying("own"))
    assert text_of(stage.post(CHAT, stage.key(), json=GOOD)) == "own"


def test_a_429_storm_pauses_the_target_and_honors_retry_after(stage: Stage) -> None:
    primary = stage.deployment(behavior=failing("rate_limited", 429, retry_after_s=60))
    target(stage, primary, "fallback", saying("fallback"))
    token = stage.key()
    for _ in range(30):
        assert text_of(stage.post(CHAT, token, json=GOOD)) == "fallback"
    # It said to come again in a minute, and is not asked before.
    assert len(stage.responders[0].requests) == 1
    assert len(stage.responders[1].requests) == 30
    assert len(stage.entries(31)) == 31


def test_without_another_target_a_429_reaches_the_caller_with_its_time(stage: Stage) -> None:
    primary = stage.deployment(behavior=failing("rate_limited", 429, retry_after_s=60))
    target(stage, primary, "fallback", failing("rate_limited", 429, retry_after_s=30))
    stage.limit("tokens_per_day", 1000)
    token = stage.key()
    first = stage.post(CHAT, token, json=GOOD)
    assert (first.status_code, first.headers["retry-after"]) == (429, "30")
    again = stage.post(CHAT, token, json=GOOD)
    assert (again.status_code, again.json()["error"]["code"]) == (503, "targets_paused")
    assert 0 < int(again.headers["retry-after"]) <= 60
    for _ in range(20):
        assert stage.post(CHAT, token, json=GOOD).status_code == 503
    assert [len(each.requests) for each in stage.responders] == [1, 1]
    assert tokens_today() == (0, 0)
    assert not any(entry.units or entry.cost_micro for entry in stage.entries(2))


def test_a_worker_that_dies_before_it_answers_is_replaced_by_the_fallback(stage: Stage) -> None:
    primary = stage.deployment(behavior=lambda request, reply: stage.responders[0].die())
    target(stage, primary, "fallback", say_hello)
    answer = stage.post(CHAT, stage.key(), json=GOOD)
    assert text_of(answer) == "Hello there"
    assert "after=worker_lost" in answer.headers["x-assay-served-by"]


def test_a_primary_without_a_replica_is_answered_by_the_fallback(stage: Stage) -> None:
    primary = stage.deployment(ready=False, behavior=None)
    target(stage, primary, "fallback", say_hello)
    assert text_of(stage.post(CHAT, stage.key(), json=GOOD)) == "Hello there"


def test_late_replies_of_a_failed_attempt_are_dropped(stage: Stage) -> None:
    def fail_and_go_on(request: InferenceRequest, reply: Reply) -> None:
        reply(Failed("engine_failed", "It failed.", 500))
        reply(Delta("forged", 1))
        reply(Done("stop", prompt_tokens=5, completion_tokens=1))

    primary = stage.deployment(behavior=fail_and_go_on)
    target(stage, primary, "fallback", saying("own"))
    token = stage.key()
    assert {text_of(stage.post(CHAT, token, json=GOOD)) for _ in range(4)} == {"own"}


def test_the_ledger_has_the_times_of_a_request_and_of_its_failed_attempts(stage: Stage) -> None:
    def fail_late(request: InferenceRequest, reply: Reply) -> None:
        time.sleep(0.05)
        reply(Failed("engine_failed", "No.", 500))

    primary = stage.deployment(behavior=fail_late)
    target(stage, primary, "fallback", say_hello)
    answer = stage.post(CHAT, stage.key(), json=GOOD)
    stage.entries(2)
    collect_once(stage.redis, consumer="tests")
    record = UsageRecord.objects.get(request_id=answer.headers["x-request-id"])
    (attempt,) = failed_attempts(record)
    assert (attempt.release, attempt.outcome, attempt.retry_ms) == (
        primary.release_id,
        "failed",
        None,
    )
    for row in (record, attempt):
        assert row.admit_ms is not None
        assert row.settle_ms is not None
        assert row.settle_ms < 1_000
    assert record.retry_ms is not None
    assert 50 <= record.retry_ms <= record.total_ms
    rows = {row.name: row for row in waterfall(record, [attempt])}
    assert rows["attempt"].title == f"Attempt 1, release {primary.release_id}, failed"
    assert rows["attempt"].milliseconds >= 50
    department, page = attempt.department, RequestFilter(fallback=True)
    lead = proven(make_person("Lead", f"lead@{department}"))
    assert [row.pk for row in requests_page(lead, page).rows] == [record.pk]
    others = requests_page(lead, RequestFilter(fallback=False)).rows
    assert record.pk not in [row.pk for row in others]


def test_no_fallback_begins_shortly_before_the_deadline(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fallback, "_LEAST_S", 3600.0)
    primary = stage.deployment(behavior=failing("engine_failed", 500))
    target(stage, primary, "fallback", say_hello)
    assert stage.post(CHAT, stage.key(), json=GOOD).status_code == 500
    assert not stage.responders[1].requests


def test_retries_are_a_fraction_of_the_requests(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breakers, "FAILURES", 1000)
    monkeypatch.setattr(breakers, "RETRIES_SAVED", 2.0)
    primary = stage.deployment(behavior=failing("engine_failed", 500))
    target(stage, primary, "fallback", say_hello)
    token = stage.key()
    statuses = Counter(stage.post(CHAT, token, json=GOOD).status_code for _ in range(12))
    assert statuses[200] == len(stage.responders[1].requests)
    assert 2 <= statuses[200] <= 4
    assert statuses[200] + statuses[500] == 12


def test_a_shadow_gets_copies_and_its_answers_reach_no_client(stage: Stage) -> None:
    primary = stage.deployment(behavior=saying("own"))
    shadow = target(
        stage,
        primary,
        "shadow",
        saying("shadow"),
        weight=100,
        release={"conditions": {"shadow_only": True}},
    )
    stage.limit("tokens_per_day", 1000)
    answer = stage.post(CHAT, stage.key(), json=GOOD)
    assert text_of(answer) == "own"
    by_endpoint = {entry.endpoint: entry for entry in stage.entries(2)}
    copy = by_endpoint["jobs/shadow"]
    assert (copy.release, copy.outcome, copy.units) == (shadow.release_id, "ok", 6)
    assert (copy.department, copy.key_public_id) == ("engineering", "")
    assert copy.part_of == answer.headers["x-request-id"]
    assert "shadow" not in answer.text.replace("shadowed", "")
    own = by_endpoint[CHAT]
    assert copy.compared is not None
    assert (copy.compared.against, copy.compared.failed) == (primary.release_id, False)
    assert (copy.compared.units, copy.compared.total_ms) == (own.units, own.total_ms)
    assert copy.compared.measure == "chrF"
    assert 0 < (copy.compared.agreement or 0) < 1


@pytest.mark.parametrize(
    ("own", "shadow", "failed", "agreement"),
    [
        (saying("alike"), saying("alike"), False, 1.0),
        (failing("engine_error", 500), saying("alike"), True, None),
        (saying("alike"), failing("engine_error", 500), False, None),
    ],
)
def test_a_copy_is_compared_with_the_answer_that_the_client_got(
    stage: Stage, own: Behavior, shadow: Behavior, agreement: float | None, *, failed: bool
) -> None:
    primary = stage.deployment(behavior=own)
    release = {"conditions": {"shadow_only": True}}
    target(stage, primary, "shadow", shadow, weight=100, release=release)
    stage.post(CHAT, stage.key(), json={**GOOD, "stream": not failed})
    (copy,) = (entry for entry in stage.entries(2) if entry.endpoint == "jobs/shadow")
    assert copy.compared is not None
    assert (copy.compared.failed, copy.compared.agreement) == (failed, agreement)
    assert UsageEntry.decode(copy.encode()) == copy


def test_a_request_that_missed_its_deadline_is_compared_as_failed(
    stage: Stage, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "_LAST_WORD_S", 0.1)
    settings.GATEWAY_REQUEST_TIMEOUT_S = 3
    primary = stage.deployment(behavior=lambda request, reply: None)
    release = {"conditions": {"shadow_only": True}}
    target(stage, primary, "shadow", saying("alike"), weight=100, release=release)
    assert stage.post(CHAT, stage.key(), json=GOOD).status_code == 504
    (copy,) = (entry for entry in stage.entries(2) if entry.endpoint == "jobs/shadow")
    assert copy.compared is not None
    assert (copy.compared.failed, copy.compared.agreement) == (True, None)


def test_a_copy_is_compared_with_the_fallback_that_answered(stage: Stage) -> None:
    primary = stage.deployment(behavior=failing("engine_error", 500))
    spare = target(stage, primary, "fallback", saying("alike"))
    release = {"conditions": {"shadow_only": True}}
    target(stage, primary, "shadow", saying("alike"), weight=100, release=release)
    assert text_of(stage.post(CHAT, stage.key(), json=GOOD)) == "alike"
    (copy,) = (entry for entry in stage.entries(3) if entry.endpoint == "jobs/shadow")
    assert copy.compared is not None
    assert (copy.compared.against, copy.compared.agreement) == (spare.release_id, 1.0)


def test_a_conversation_goes_on_with_the_release_that_began_it(stage: Stage) -> None:
    primary = stage.deployment(behavior=saying("stable"))
    canary = target(stage, primary, "canary", saying("canary"), weight=100)
    department = Department.objects.get(slug="engineering")
    ResponseRetention.objects.create(department=department, days=1)
    token = stage.key(scopes=["deployment:invoke", "response:create", "response:view"])
    body = {"model": "writer", "input": "Hi", "store": True}
    began = stage.post("/v1/responses", token, json=body)
    assert began.status_code == 200, began.text
    assert began.headers["x-assay-release"] == str(canary.release_id)
    Deployment.objects.filter(pk=canary.pk).update(weight=0)
    stage.notify()
    following = {**body, "previous_response_id": began.json()["id"]}
    again = stage.post("/v1/responses", token, json=following)
    assert again.headers["x-assay-release"] == str(canary.release_id)
    assert "x-assay-conversation" not in again.headers
    # A further target, since the canary ends.
    target(stage, primary, "fallback", say_hello)
    Deployment.objects.filter(pk=canary.pk).update(state=DeploymentState.STOPPED)
    stage.notify()
    moved = stage.post("/v1/responses", token, json=following)
    assert moved.headers["x-assay-release"] == str(primary.release_id)
    assert moved.headers["x-assay-conversation"].startswith(f"release {canary.release_id}")


def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [1000.0]
    monkeypatch.setattr(breakers, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


def test_a_breaker_opens_probes_and_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    forward, own = clock(monkeypatch), Breakers()
    for _ in range(breakers.FAILURES - 1):
        own.failed(1, "writer")
    assert own.take(1)
    own.failed(1, "writer")
    assert not own.take(1)
    forward(breakers.PAUSE_S)
    assert own.take(1)
    assert not own.take(1), "one request alone tries the target"
    own.failed(1, "writer")
    forward(breakers.PAUSE_S)
    assert not own.take(1), "the second pause is longer"
    forward(breakers.PAUSE_S)
    assert own.take(1)
    own.answered(1)
    assert own.take(1)
    assert own.take(1)


def test_a_probe_without_a_result_makes_room_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    forward, own = clock(monkeypatch), Breakers()
    own.failed(1, "writer", retry_after=7.0)
    assert own.wait_s(1) == 7.0
    forward(7.0)
    assert own.take(1)
    forward(breakers.PROBE_S)
    assert own.take(1)


def test_a_retry_budget_is_spent_and_earned() -> None:
    budget = RetryBudget()
    assert [budget.spend("writer") for _ in range(11)] == [True] * 10 + [False]
    for _ in range(11):
        budget.earn("writer")
    assert [budget.spend("writer") for _ in range(2)] == [True, False]


def test_a_pace_counts_busy_time_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: now[0]))
    paces = Paces()
    for _ in range(pace.LEAST):
        assert paces.expected_s(1, "a") == 0.0
        paces.begin(1, "a")
        now[0] += 2.0
        paces.end(1, "a", answered=True)
        now[0] += 500.0
    for _ in range(3):
        paces.begin(1, "a")
    assert paces.expected_s(1, "a") == pytest.approx(6.0)
    paces.end(1, "a", answered=False)
    assert paces.expected_s(1, "a") == pytest.approx(4.0)
    # Another department takes turns: it waits for its own request, and for one of the first.
    paces.begin(1, "b")
    assert paces.expected_s(1, "b") == pytest.approx(4.0)
    assert paces.expected_s(1, "b", {"b": 2}) == pytest.approx(3.0)
    assert paces.expected_s(1, "a", {"b": 2}) == pytest.approx(6.0)


def test_a_request_that_would_be_too_late_is_refused_at_once_and_costs_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = stage.deployment(behavior=saying("own"))
    stage.limit("requests_per_minute", 5)
    token = stage.key()
    paces = stage.application.gateway.start().parts.paces
    now = [1000.0]
    with monkeypatch.context() as patched:
        patched.setattr(pace, "time", SimpleNamespace(monotonic=lambda: now[0]))
        for _ in range(pace.LEAST):
            paces.begin(deployment.pk, "engineering")
            now[0] += 100.0
            paces.end(deployment.pk, "engineering", answered=True)
        for _ in range(4):
            paces.begin(deployment.pk, "engineering")
        late = stage.post(CHAT, token, json=GOOD)
        assert (late.status_code, late.json()["error"]["code"]) == (503, "deadline_unreachable")
        assert int(late.headers["retry-after"]) > 100
        assert not stage.responders[0].requests
        target(stage, deployment, "fallback", saying("fallback"))
        assert text_of(stage.post(CHAT, token, json=GOOD)) == "fallback"


def test_entries_of_other_gateways_without_a_route_are_read() -> None:
    entry = UsageEntry(request_id="req_1", occurred_at=0.0, outcome="ok", endpoint=CHAT)
    stored = json.loads(entry.to_json())
    del stored["route"]
    assert UsageEntry(**stored) == entry
