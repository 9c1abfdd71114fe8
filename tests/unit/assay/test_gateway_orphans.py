"""A request whose gateway dies becomes a usage record and an event nevertheless, and once."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pytest
import redis as redis_module
import redis.asyncio

from assay.gateway.quota.quotas import Quotas
from governance.audit.models import AuditEvent
from governance.quotas.maintenance import orphans_settle
from governance.quotas.models import Price
from governance.quotas.store import read_counts
from governance.quotas.wire import Amount, Limit
from governance.usage.collector import collect_once
from governance.usage.models import UsageRecord
from governance.usage.records import UsageEntry
from tests.unit.assay.gateway_support import Reply, Stage, stage
from tests.waiting import wait_until
from workers.wire import Delta, Done, InferenceRequest

pytestmark = pytest.mark.sweep

__all__ = ["stage"]

CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "Hi"}]
GOOD: dict[str, Any] = {"model": "writer", "messages": HI, "max_tokens": 10}
ADMITTED = "assay:quota:admitted"
UNTIL = "assay:quota:admitted:deadlines"


def over(redis: redis_module.Redis) -> None:
    """The time of every admitted request has passed."""
    for request_id in redis.hkeys(ADMITTED):
        redis.zadd(UNTIL, {request_id: 1})


def tokens_today(subject: str) -> tuple[int, int]:
    (count,) = read_counts([(subject, "tokens_per_day")]).counts
    return count.used, count.reserved


@pytest.mark.parametrize("limited", [True, False])
def test_what_a_dead_gateway_leaves_is_settled_once_with_what_is_known(
    stage: Stage, limited: bool
) -> None:
    admitted: list[dict[bytes, bytes]] = []

    def note(request: InferenceRequest, reply: Reply) -> None:
        admitted.append(stage.redis.hgetall(ADMITTED))
        reply(Delta("Hi", 1))
        reply(Done("stop", prompt_tokens=5, completion_tokens=3))

    stage.deployment(behavior=note)
    Price.objects.create(deployment="writer", prompt=10**6, completion=2 * 10**6)
    if limited:
        stage.limit("tokens_per_day", 1000)
    token = stage.key()
    assert stage.post(CHAT, token, json=GOOD).status_code == 200
    (entry,) = stage.entries()
    assert stage.redis.hgetall(ADMITTED) == {}
    # Settled already: as after a crash between settling and answering, it stays as it is.
    ((request_id, text),) = admitted[0].items()
    stage.redis.hset(ADMITTED, request_id, text)
    over(stage.redis)
    assert orphans_settle() == 0
    assert stage.redis.xlen("assay:usage") == 1

    # Never settled: its gateway has ended.
    stage.redis.delete(f"assay:quota:settled:{entry.request_id}", "assay:usage")
    before = tokens_today("department:engineering")[0]
    stage.redis.hset(ADMITTED, request_id, text)
    over(stage.redis)
    assert orphans_settle() == 1
    assert orphans_settle() == 0
    assert tokens_today("department:engineering")[0] > before
    assert collect_once(stage.redis, consumer="test") == 1
    record = UsageRecord.objects.get()
    assert (record.request_id, record.outcome) == (entry.request_id, "failed")
    assert record.prompt_tokens > 0
    assert record.completion_tokens == 0
    assert record.cost_micro == record.prompt_tokens
    event = AuditEvent.objects.get(action="deployment:invoke")
    assert event.outcome == "allowed"


def test_what_still_runs_is_left_to_its_gateway(stage: Stage) -> None:
    def wait(request: InferenceRequest, reply: Reply) -> None:
        assert stage.redis.hlen(ADMITTED) == 1
        assert orphans_settle() == 0
        reply(Done("stop", prompt_tokens=5, completion_tokens=3))

    stage.deployment(behavior=wait)
    assert stage.post(CHAT, stage.key(), json=GOOD).status_code == 200
    (entry,) = stage.entries()
    assert entry.outcome == "ok"


def test_what_is_refused_or_not_published_leaves_no_admission(stage: Stage) -> None:
    deployment = stage.deployment(behavior=None)
    stage.limit("requests_per_minute", 1)
    token = stage.key()
    stage.redis.set(f"deployment.{deployment.pk}", "not a list")
    assert stage.post(CHAT, token, json=GOOD).status_code == 503
    stage.limit("tokens_per_minute", 1)
    assert stage.post(CHAT, token, json=GOOD).status_code == 429
    wait_until(lambda: stage.redis.hlen(ADMITTED) == 0)
    assert stage.redis.zcard(UNTIL) == 0


@pytest.mark.django_db
def test_an_admission_that_nobody_wrote_is_dropped(redis: redis_module.Redis) -> None:
    redis.hset(ADMITTED, "req_forged", "{}")
    redis.zadd(UNTIL, {"req_forged": time.time()})
    assert orphans_settle() == 0
    assert redis.hgetall(ADMITTED) == {}
    assert redis.zcard(UNTIL) == 0
    assert AuditEvent.objects.filter(action="usage:refuse", outcome="denied").exists()


@pytest.mark.django_db
def test_an_admission_whose_answer_was_lost_is_withdrawn_and_costs_nothing(
    redis: redis_module.Redis,
) -> None:
    limits = [Limit("department:engineering", "requests_per_minute", 5)]
    entry = UsageEntry("req_1", time.time(), "failed", CHAT, "engineering", "k")

    async def reserve_and_withdraw() -> None:
        client = redis_module.asyncio.Redis.from_url(os.environ["REDIS_URL"])
        quotas = Quotas(client)
        await quotas.reserve(entry=entry, limits=limits, amount=Amount(5), lifetime_s=1)
        assert redis.hlen(ADMITTED) == 1
        await quotas.withdraw("req_1")
        await client.aclose()

    asyncio.run(reserve_and_withdraw())
    assert redis.hlen(ADMITTED) == 0
    assert redis.keys("assay:quota:reservation:*") == []
    (count,) = read_counts([("department:engineering", "requests_per_minute")]).counts
    assert (count.used, count.reserved) == (0, 0)
