"""Prompts that begin alike go to the replica that knows their beginning, unless it is slow."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from django.conf import settings

from assay.gateway.access.deployment_entries import DeploymentEntry, ReplicaEntry
from assay.gateway.run import execution, worker_watch
from assay.gateway.run.affinity import AVOIDED_S, BEGINNING, UNCOUNTED, Affinity, Place
from governance.policy.engine import Resource
from tests.unit.assay.gateway_support import (
    DIGEST,
    Reply,
    Responder,
    Stage,
    lasting_heartbeat,
    say_hello,
    stage,
)
from tests.unit.workers.sealed import worker_seals
from tests.waiting import wait_until
from workers.deployments.models import Deployment, Replica, ReplicaState
from workers.deployments.worker_keys import worker_key_register
from workers.wire import InferenceRequest, deployment_queue, replica_queue

__all__ = ["stage"]
WORKERS = tuple(f"{number:02x}" * 32 for number in range(1, 5))
ENTRY = DeploymentEntry(
    id=1, name="chat", department="d", release=1, digest="d", task="text-generation",
    expires_at=0.0, created_at=0.0, ready_until=0.0, leased_until=0.0, obstacle="",
    resource=Resource(type="deployment", id="1", name="chat"),
    replicas=tuple(
        ReplicaEntry(id=number, address=worker, ready=True, heartbeat=time.time() + 3600)
        for number, worker in enumerate(WORKERS)
    ),
    keeps_prefixes=True,
)  # fmt: skip


def beginning(number: int, rest: str = "") -> dict[str, Any]:
    return {"messages": [{"role": "system", "content": f"{number} " + "x" * BEGINNING + rest}]}


def chosen(
    inputs: dict[str, Any],
    *,
    affinity: Affinity | None = None,
    entry: DeploymentEntry = ENTRY,
    scope: str = "engineering",
) -> str:
    place = (affinity or Affinity()).enter(entry, entry.workers, scope, inputs)
    assert place is not None
    return place.worker


def test_prompts_that_begin_alike_go_to_one_replica_and_others_spread() -> None:
    assert len({chosen(beginning(1, str(rest))) for rest in range(20)}) == 1
    spread = Counter(chosen(beginning(number)) for number in range(400))
    assert set(spread) == set(WORKERS)
    assert min(spread.values()) > 60


def test_departments_have_places_of_their_own() -> None:
    differ = [
        chosen(beginning(number)) != chosen(beginning(number), scope="clinical")
        for number in range(100)
    ]
    assert sum(differ) > 50


def test_a_replica_that_goes_moves_its_own_prompts_alone() -> None:
    fewer = replace(ENTRY, replicas=ENTRY.replicas[1:])
    for number in range(100):
        before = chosen(beginning(number))
        if before != WORKERS[0]:
            assert chosen(beginning(number), entry=fewer) == before


@pytest.mark.parametrize(
    ("entry", "scope"),
    [
        (replace(ENTRY, keeps_prefixes=False), "engineering"),
        (replace(ENTRY, replicas=ENTRY.replicas[:1]), "engineering"),
        (ENTRY, ""),
    ],
)
def test_nothing_is_chosen_without_a_cache_another_replica_or_a_department(
    entry: DeploymentEntry, scope: str
) -> None:
    assert Affinity().enter(entry, WORKERS, scope, beginning(1)) is None


def test_only_recipients_of_the_request_are_chosen() -> None:
    assert Affinity().enter(ENTRY, WORKERS[:1], "engineering", beginning(1)) is None
    for number in range(20):
        place = Affinity().enter(ENTRY, WORKERS[:2], "engineering", beginning(number))
        assert place is not None
        assert place.worker in WORKERS[:2]


def test_a_short_prompt_goes_to_any_replica() -> None:
    assert chosen({"messages": [{"role": "user", "content": "Hello"}]}) == ""


def test_a_replica_with_far_more_requests_than_the_others_is_passed_over() -> None:
    affinity = Affinity()
    places = [affinity.enter(ENTRY, WORKERS, "engineering", beginning(1)) for _ in range(100)]
    counts = Counter(place.worker for place in places if place is not None)
    assert counts[chosen(beginning(1))] == max(counts.values())
    assert max(counts.values()) <= 1.25 * 100 / len(WORKERS) + 1
    for place in places:
        affinity.leave(place)
    first = [chosen(beginning(1), affinity=affinity) for _ in range(UNCOUNTED)]
    assert set(first) == {chosen(beginning(1))}


def test_a_replica_that_began_too_late_is_avoided_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    affinity, first = Affinity(), chosen(beginning(1))
    affinity.avoid(first)
    assert chosen(beginning(1), affinity=affinity) not in ("", first)
    later = time.monotonic() + AVOIDED_S
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert chosen(beginning(1), affinity=affinity) == first


def test_places_that_ended_are_forgotten() -> None:
    affinity = Affinity()
    place = affinity.enter(ENTRY, WORKERS, "engineering", beginning(1))
    assert isinstance(place, Place)
    affinity.leave(place)
    affinity.leave(None)
    assert not affinity._running
    assert not affinity._of_deployment


def second_replica(stage: Stage, deployment: Deployment) -> Responder:
    responder = Responder(deployment.pk, say_hello)
    stage.responders.append(responder)
    Replica.objects.create(
        deployment=deployment,
        worker="second",
        state=ReplicaState.READY,
        loaded_digest=DIGEST,
        heartbeat_at=lasting_heartbeat(),
    )
    worker_key_register(worker="second", public_key=responder.seals.public_key)
    stage.notify()
    return responder


def ask(stage: Stage, token: str, text: str) -> None:
    body = {"model": "writer", "prompt": text, "max_tokens": 3}
    answer = stage.post("/v1/completions", token, json=body)
    assert answer.status_code == 200, answer.text


def test_requests_that_begin_alike_reach_one_replica(stage: Stage) -> None:
    deployment = stage.deployment(engine="vllm")
    responders = [stage.responders[-1], second_replica(stage, deployment)]
    token = stage.key()
    for number in range(6):
        ask(stage, token, "x" * BEGINNING + str(number))
    assert sorted(len(each.requests) for each in responders) == [0, 6]


def test_a_replica_that_does_not_begin_is_relieved_by_another(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "PATIENCE_S", 0.1)
    deployment = stage.deployment(engine="vllm")
    responders = [stage.responders[-1], second_replica(stage, deployment)]
    token = stage.key()
    ask(stage, token, "x" * BEGINNING)
    first, other = sorted(responders, key=lambda each: -len(each.requests))
    first.stop(wait=True)
    ask(stage, token, "x" * BEGINNING)
    ask(stage, token, "x" * BEGINNING)
    assert (len(first.requests), len(other.requests)) == (1, 2)
    queue = replica_queue(deployment_queue(deployment.pk), first.seals.address)
    wait_until(lambda: stage.redis.llen(queue) == 0)


def test_the_message_for_a_lost_replica_is_not_sent_to_the_next_target(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_watch, "CHECK_S", 0.1)
    monkeypatch.setattr(worker_watch, "PATIENCE_S", 0.1)
    monkeypatch.setattr(execution, "PATIENCE_S", 2.0)
    ended = threading.Event()

    def answer_late(request: InferenceRequest, reply: Reply) -> None:
        ended.wait(10)
        say_hello(request, reply)

    primary = stage.deployment(engine="vllm")
    lost = [stage.responders[-1], second_replica(stage, primary)]
    own = {"target_of": primary, "role": "fallback", "position": 1}
    stage.deployment(behavior=answer_late, target=own)
    fallback = stage.responders[-1]
    for each in lost:
        each.stop(wait=True)
        each.die()
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(ask, stage, stage.key(), "x" * BEGINNING)
        pattern = f"{deployment_queue(primary.pk)}*"
        wait_until(lambda: fallback.requests and not list(stage.redis.scan_iter(pattern)))
        ended.set()
        answer.result()
    assert (len(fallback.requests), fallback.bounced) == (1, 0)


def test_a_request_whose_caller_left_is_taken_back_and_not_sent_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "PATIENCE_S", 0.5)
    monkeypatch.setattr(settings, "GATEWAY_REQUEST_TIMEOUT_S", 0.1)
    deployment = stage.deployment(engine="vllm", behavior=None)
    Replica.objects.create(
        deployment=deployment,
        worker="second",
        state=ReplicaState.READY,
        loaded_digest=DIGEST,
        heartbeat_at=lasting_heartbeat(),
    )
    worker_key_register(worker="second", public_key=worker_seals().public_key)
    stage.notify()
    body = {"model": "writer", "prompt": "x" * BEGINNING, "max_tokens": 3}
    assert stage.post("/v1/completions", stage.key(), json=body).status_code == 504
    pattern = f"{deployment_queue(deployment.pk)}*"
    assert [stage.redis.ttl(key) > 0 for key in stage.redis.scan_iter(pattern)] == [True]
    wait_until(lambda: not list(stage.redis.scan_iter(pattern)))
