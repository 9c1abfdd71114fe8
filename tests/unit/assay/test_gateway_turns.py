"""Departments take turns in the queue of a deployment: one's backlog does not delay the others."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis as redis_module
from redis.asyncio import Redis as AsyncRedis

from assay.gateway.quota.backlogs import Backlogs
from assay.gateway.quota.quotas import QueueFull, Quotas
from governance.quotas import store
from governance.quotas.wire import (
    Amount,
    Queued,
    Verdict,
    advance_arguments,
    requeue_arguments,
    reserve_arguments,
    turns_key,
    waiting_key,
)
from tests.unit.assay.gateway_support import Stage, stage
from tests.unit.assay.test_gateway_accounts import entry
from tests.unit.assay.test_gateway_routing import CHAT, GOOD
from tests.waiting import wait_until
from workers.celery_message import inference_message
from workers.queue_ages import Queue, read_queues
from workers.wire import InferenceRequest, deployment_queue

pytestmark = pytest.mark.sweep

__all__ = ["stage"]
# No other test has this deployment: workers of other tests may still read their queues.
PK, WINDOW = 900_000_001, 32
QUEUE = deployment_queue(PK)


def send(department: str, count: int, *, weight: int = 1, most: int = 1000) -> int:
    """Send requests of a department; return the number that were accepted."""
    accepted = 0
    for number in range(count):
        queued = Queued(QUEUE, f"{department}:{number}".encode(), most, department, weight)
        text = store._run(reserve_arguments("req", 1000, Amount(1), [], "", queued))
        accepted += not Verdict.read(text, []).full
    return accepted


def taken(redis: redis_module.Redis, count: int) -> list[str]:
    """Take requests as a worker does, one at a time; return their departments."""
    names = []
    for _ in range(count):
        message: Any = redis.rpop(QUEUE)
        if message is None:
            break
        names.append(message.decode().split(":")[0])
        store._run(advance_arguments(QUEUE))
    return names


def test_requests_of_one_department_keep_their_order_and_get_all_room(
    redis: redis_module.Redis,
) -> None:
    assert send("a", 130, most=100) == 100
    assert redis.llen(QUEUE) == WINDOW
    assert redis.hget(turns_key(QUEUE), "length") == b"68"
    # If all gateways end, nothing is left behind.
    for key in (turns_key(QUEUE), waiting_key(QUEUE), f"{waiting_key(QUEUE)}:a"):
        assert 0 < int(redis.pttl(key)) <= 120_000  # type: ignore[arg-type]
    messages = []
    while message := redis.rpop(QUEUE):
        messages.append(message.decode())
        store._run(advance_arguments(QUEUE))
    assert messages == [f"a:{number}" for number in range(100)]
    assert not redis.exists(turns_key(QUEUE), waiting_key(QUEUE), f"{waiting_key(QUEUE)}:a")


def test_a_flood_of_one_department_leaves_the_other_its_share(redis: redis_module.Redis) -> None:
    send("a", 500)
    send("b", 50)
    names = taken(redis, 200)
    assert names[:WINDOW] == ["a"] * WINDOW
    assert Counter(names[WINDOW : WINDOW + 100]) == {"a": 50, "b": 50}
    assert set(names[WINDOW + 100 :]) == {"a"}


def test_turns_follow_weights(redis: redis_module.Redis) -> None:
    send("a", 200, weight=3)
    send("b", 200)
    send("c", 200, weight=2)
    counts = Counter(taken(redis, WINDOW + 120)[WINDOW:])
    assert counts == {"a": 60, "b": 20, "c": 40}


def test_a_department_that_sends_one_by_one_gets_no_more_than_its_share(
    redis: redis_module.Redis,
) -> None:
    send("b", 200)
    names = []
    for _ in range(100):
        # Its name comes first in the order of Valkey.
        if not redis.exists(f"{waiting_key(QUEUE)}:a"):
            send("a", 1)
        names += taken(redis, 1)
    assert 25 <= Counter(names)["a"] <= 51


def test_a_full_backlog_of_one_department_has_room_for_others(redis: redis_module.Redis) -> None:
    assert send("a", 200, most=100) == 100
    assert send("b", 200, most=100) == 50
    assert send("a", 1, most=100) == 0
    assert send("c", 200, weight=2, most=100) == 50
    assert sum(map(len, [taken(redis, 300)])) == 200
    assert send("a", 1, most=100) == 1


def test_a_request_that_moves_from_a_replica_waits_for_its_turn(redis: redis_module.Redis) -> None:
    send("a", 100, most=100)
    queued = Queued(QUEUE, b"b:0", 100, "b")
    assert int(store._run(requeue_arguments(queued))) == 100 - WINDOW + 1
    assert "b" in taken(redis, WINDOW + 2)
    redis.set(f"{QUEUE}0", "text")
    assert int(store._run(requeue_arguments(Queued(f"{QUEUE}0", b"m", 1, "b")))) == -3


def test_length_and_age_count_requests_that_wait_for_a_turn(redis: redis_module.Redis) -> None:
    for number in range(WINDOW + 3):
        request = InferenceRequest("r", PK, "d", "d" * 64, "s", {}, enqueued_at=100.5 + number)
        queued = Queued(QUEUE, inference_message(request, {}), 1000, "a")
        store._run(reserve_arguments("req", 1000, Amount(1), [], "", queued))
    assert read_queues(redis, [PK]) == {PK: Queue(WINDOW + 3, 100.5)}
    redis.rpop(QUEUE, WINDOW)
    assert read_queues(redis, [PK]) == {PK: Queue(3, 100.5 + WINDOW)}


@pytest.fixture
async def processes(redis: redis_module.Redis) -> AsyncIterator[list[Quotas]]:
    clients = [AsyncRedis.from_url(os.environ["REDIS_URL"]) for _ in range(2)]
    quotas = [Quotas(client) for client in clients]
    yield quotas
    for each, client in zip(quotas, clients, strict=True):
        await each.backlogs.close()
        await client.aclose()


async def reserve(quotas: Quotas, name: str, number: int) -> None:
    queued = Queued(QUEUE, f"{name}:{number}".encode(), 100, name)
    made = entry(f"req_{name}_{number}")
    await quotas.reserve(entry=made, limits=(), amount=Amount(1), lifetime_s=9, queued=queued)


async def test_two_processes_move_requests_on_until_none_waits(
    processes: list[Quotas], redis: redis_module.Redis
) -> None:
    for each in processes:
        each.backlogs.begin(QUEUE)
    for number in range(100):
        await reserve(processes[0], "a", number)
    with pytest.raises(QueueFull, match="has its share"):
        await reserve(processes[0], "a", 100)
    for number in range(10):
        await reserve(processes[1], "b", number)
    assert [QUEUE in each.backlogs for each in processes] == [True, True]
    names: list[str] = []
    async with asyncio.timeout(10):
        while len(names) < 110:
            names += [each.decode()[0] for each in redis.rpop(QUEUE, 8) or []]
            processes[1].backlogs.begin(QUEUE)
            processes[1].backlogs.end(QUEUE)
            await asyncio.sleep(0.005)
        while any(QUEUE in each.backlogs for each in processes):
            await asyncio.sleep(0.01)
    assert Counter(names) == {"a": 100, "b": 10}
    assert names[:WINDOW] == ["a"] * WINDOW
    assert names[WINDOW : WINDOW + 20].count("b") == 10


async def test_a_process_without_running_requests_lets_those_that_wait_expire(
    processes: list[Quotas], redis: redis_module.Redis
) -> None:
    backlogs = processes[0].backlogs
    backlogs.begin(QUEUE)
    for number in range(WINDOW + 1):
        await reserve(processes[0], "a", number)
    assert QUEUE in backlogs
    backlogs.end(QUEUE)
    async with asyncio.timeout(10):
        while QUEUE in backlogs:
            await asyncio.sleep(0.01)
    assert redis.llen(f"{waiting_key(QUEUE)}:a") == 1


async def test_a_request_that_begins_to_wait_during_the_last_call_is_moved_on() -> None:
    calls = []

    async def advance(queue: str) -> int:
        calls.append(queue)
        if len(calls) == 1:
            backlogs.note(queue)
        return 0

    backlogs = Backlogs(advance)
    backlogs.begin(QUEUE)
    backlogs.note(QUEUE)
    async with asyncio.timeout(10):
        while QUEUE in backlogs:
            await asyncio.sleep(0.01)
    assert calls == [QUEUE, QUEUE]


def test_the_gateway_gives_a_department_its_turns_in_a_flood(stage: Stage) -> None:
    both = ("engineering", "finance")
    deployment = stage.deployment(departments=both)
    (responder,) = stage.responders
    responder.stop(wait=True)
    flood, other = stage.key(), stage.key("finance")
    queue = deployment_queue(deployment.pk)

    def waiting() -> int:
        behind = stage.redis.hget(turns_key(queue), "length")
        return int(stage.redis.llen(queue)) + int(behind or 0)  # type: ignore[arg-type]

    with ThreadPoolExecutor(60) as threads:
        answers = [threads.submit(stage.post, CHAT, flood, json=GOOD) for _ in range(50)]
        wait_until(lambda: waiting() == 50)
        answers += [threads.submit(stage.post, CHAT, other, json=GOOD) for _ in range(4)]
        wait_until(lambda: waiting() == 54)
        responder.resume()
        assert {each.result().status_code for each in answers} == {200}
    scopes = [request.scope for request in responder.requests]
    assert Counter(scopes) == {"engineering": 50, "finance": 4}
    assert Counter(scopes[: WINDOW + 9])["finance"] == 4
    assert all(each.admit_ms is not None for each in stage.entries(54))
