"""Quota script and ledger alone, on a real Valkey."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
import redis as redis_module
from redis.asyncio import Redis as AsyncRedis

from assay.gateway.ledger import ANONYMOUS_PER_S, Ledger, RefusalLimiter, Settlement
from assay.gateway.quotas import Limit, Quotas, QuotaStopped
from governance.usage.records import USAGE_STREAM, UsageEntry

REQUESTS = Limit("key:1", "Key a", "requests_per_minute", 3)
DEPARTMENT = Limit("department:1", "Department b", "tokens_per_minute", 100)
DAY = Limit("department:1", "Department b", "tokens_per_day", 100)
SLOTS = Limit("key:1", "Key a", "concurrent_requests", 1)


@pytest.fixture
async def quotas(redis: redis_module.Redis) -> AsyncIterator[Quotas]:
    client = AsyncRedis.from_url(os.environ["REDIS_URL"])
    yield Quotas(client)
    await client.aclose()


def entry(request_id: str = "req_1") -> UsageEntry:
    return UsageEntry(request_id=request_id, occurred_at=0.0, outcome="ok", endpoint="/v1/x")


async def reserve(quotas: Quotas, request_id: str, *limits: Limit, tokens: int = 10) -> None:
    await quotas.reserve(request_id=request_id, limits=limits, tokens=tokens, lifetime_s=30)


async def test_a_limit_without_room_leaves_the_others_uncharged(
    quotas: Quotas, redis: redis_module.Redis
) -> None:
    with pytest.raises(QuotaStopped, match=r"Department b.* never fits"):
        await reserve(quotas, "req_1", REQUESTS, DEPARTMENT, tokens=101)
    assert redis.keys("*") == []
    for number in range(3):
        await reserve(quotas, f"req_{number}", REQUESTS, DEPARTMENT)
    with pytest.raises(QuotaStopped, match=r"Key a is limited to 3 requests") as refused:
        await reserve(quotas, "req_9", REQUESTS, DEPARTMENT)
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after <= 65
    headers = dict(refused.value.headers)
    assert headers[b"x-ratelimit-remaining-tokens"] == b"70"


async def test_settling_twice_charges_once(quotas: Quotas, redis: redis_module.Redis) -> None:
    await reserve(quotas, "req_1", DAY, DEPARTMENT, SLOTS, tokens=40)
    assert await quotas.settle(request_id="req_1", tokens=15) is True
    assert await quotas.settle(request_id="req_1", tokens=15) is False
    (day,) = redis.keys("assay:quota:tokens_per_day:*")
    assert redis.get(day) == b"15"
    await reserve(quotas, "req_2", DAY, DEPARTMENT, SLOTS, tokens=85)


async def test_a_request_that_never_ran_is_given_back(quotas: Quotas) -> None:
    for number in range(3):
        await reserve(quotas, f"req_{number}", REQUESTS, DEPARTMENT, tokens=30)
    await quotas.settle(request_id="req_0", tokens=0, refund=True)
    await reserve(quotas, "req_4", REQUESTS, DEPARTMENT, tokens=40)


async def test_the_slot_of_a_gateway_that_died_comes_free_by_itself(
    quotas: Quotas, redis: redis_module.Redis
) -> None:
    await reserve(quotas, "req_1", SLOTS)
    with pytest.raises(QuotaStopped):
        await reserve(quotas, "req_2", SLOTS)
    redis.zadd(SLOTS.store_key, {"req_1": 1.0})
    await reserve(quotas, "req_2", SLOTS)


async def test_a_window_forgets_what_has_left_it(quotas: Quotas, redis: redis_module.Redis) -> None:
    for number in range(3):
        await reserve(quotas, f"req_{number}", REQUESTS)
    (slot,) = redis.hkeys(REQUESTS.store_key)
    redis.hdel(REQUESTS.store_key, slot)
    redis.hset(REQUESTS.store_key, str(int(slot) - 13), 3)
    await reserve(quotas, "req_9", REQUESTS)
    assert redis.hkeys(REQUESTS.store_key) == [slot]


async def test_what_redis_does_not_take_is_held_and_blocks_until_it_does(
    quotas: Quotas, redis: redis_module.Redis
) -> None:
    ledger = Ledger(quotas)
    ledger.start()
    redis.config_set("maxmemory", 1)
    try:
        await ledger.settle(Settlement(entry()))
        assert ledger.blocked
    finally:
        redis.config_set("maxmemory", 0)
    while ledger.blocked:
        await asyncio.sleep(0.02)
    ((_, fields),) = redis.xrange(USAGE_STREAM)
    assert UsageEntry.decode(fields[b"entry"]) == entry()
    await ledger.stop()


def test_refusals_beyond_the_rate_are_counted_for_the_next_one() -> None:
    limiter = RefusalLimiter()
    admitted = [limiter.admit("")[0] for _ in range(50 * ANONYMOUS_PER_S)]
    assert admitted.count(False) > 0
    assert limiter.admit("another key") == (True, 0)
