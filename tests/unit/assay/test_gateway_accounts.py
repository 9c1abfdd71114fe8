"""Quota script and ledger alone, on a real Valkey."""

from __future__ import annotations

import asyncio
import calendar
import math
import os
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import redis as redis_module
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis as AsyncRedis

from assay.gateway.http.errors import error_headers
from assay.gateway.monitoring.exposition import exposition
from assay.gateway.quota.ledger import ANONYMOUS_PER_S, Ledger, RefusalLimiter, Settlement
from assay.gateway.quota.quotas import Quotas, QuotaStopped, Reservation
from governance.errors import Unavailable
from governance.quotas.store import read_counts, reclaim
from governance.quotas.wire import READY_KEY, SCRIPT, Amount, Limit
from governance.usage.records import USAGE_STREAM, UsageEntry

REQUESTS = Limit("key:a", "requests_per_minute", 3)
TOKENS = Limit("department:b", "tokens_per_minute", 100)
DAY = Limit("department:b", "tokens_per_day", 100)
MONEY = Limit("organization", "money_per_month", 1_000_000)
DEVICE = Limit("deployment:d", "gpu_seconds_per_month", 2)
SLOTS = Limit("key:a", "concurrent_requests", 1)
EVERY = (MONEY, DAY, TOKENS, DEVICE, REQUESTS, Limit("key:a", "concurrent_requests", 9))
RESERVATIONS = "assay:quota:reservation:*"


@pytest.fixture
async def quotas(redis: redis_module.Redis) -> AsyncIterator[Quotas]:
    redis.set(READY_KEY, 1)
    client = AsyncRedis.from_url(os.environ["REDIS_URL"])
    yield Quotas(client)
    await client.aclose()


def entry(request_id: str = "req_1", **changes: Any) -> UsageEntry:
    return UsageEntry(
        **{
            "request_id": request_id,
            "occurred_at": time.time(),
            "outcome": "ok",
            "endpoint": "/v1/x",
            "department": "b",
            "key_public_id": "a",
            "deployment": "d",
            **changes,
        }
    )


async def reserve(
    quotas: Quotas, request_id: str, *limits: Limit, lifetime_s: float = 30, **amount: Any
) -> Reservation:
    wanted = Amount(**{"units": 10, "micro": 1000, "device_ms": 100, **amount})
    return await quotas.reserve(
        entry=entry(request_id), limits=limits, amount=wanted, lifetime_s=lifetime_s
    )


def counted(*limits: Limit) -> list[tuple[int, int]]:
    """Used and reserved of each."""
    reading = read_counts([(limit.subject, limit.kind) for limit in limits])
    return [(count.used, count.reserved) for count in reading.counts]


async def test_a_limit_without_room_leaves_the_others_uncharged(
    quotas: Quotas, redis: redis_module.Redis
) -> None:
    with pytest.raises(QuotaStopped, match=r"Department b.* never fits"):
        await reserve(quotas, "req_1", REQUESTS, TOKENS, units=101)
    assert [key for key in redis.keys("*") if b":stops:" not in key] == [READY_KEY.encode()]
    for number in range(3):
        await reserve(quotas, f"req_{number}", REQUESTS, TOKENS)
    with pytest.raises(QuotaStopped, match=r"API key a is limited to 3 requests") as refused:
        await reserve(quotas, "req_9", REQUESTS, TOKENS)
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after <= 65
    headers = dict(refused.value.headers)
    assert headers[b"x-ratelimit-remaining-tokens"] == b"70"
    assert headers[b"x-assay-limit"] == b"key:a requests_per_minute"


async def test_room_returns_a_minute_after_the_first_request(quotas: Quotas) -> None:
    headers = dict((await reserve(quotas, "req_1", REQUESTS)).headers)
    assert headers[b"x-ratelimit-reset-requests"] == b"60000ms"


async def test_settling_twice_charges_once(quotas: Quotas, redis: redis_module.Redis) -> None:
    await reserve(quotas, "req_1", DAY, TOKENS, SLOTS, units=40)
    used = entry("req_1", prompt_tokens=10, completion_tokens=5)
    assert await quotas.settle(used) is True
    assert await quotas.settle(used) is False
    assert counted(DAY, TOKENS, SLOTS) == [(15, 0), (15, 0), (0, 0)]
    assert redis.xlen(USAGE_STREAM) == 1
    assert redis.keys(RESERVATIONS) == []
    await reserve(quotas, "req_2", DAY, TOKENS, SLOTS, units=85)


async def test_reserved_is_shown_apart_and_replaced_by_what_was_used(quotas: Quotas) -> None:
    await reserve(quotas, "req_1", *EVERY)
    assert counted(*EVERY) == [(0, 1000), (0, 10), (10, 0), (0, 100), (1, 0), (0, 1)]
    await quotas.settle(entry(prompt_tokens=2, completion_tokens=1, cost_micro=7, device_ms=42))
    assert counted(*EVERY) == [(7, 0), (3, 0), (3, 0), (42, 0), (1, 0), (0, 0)]


async def test_use_counts_on_every_subject_though_nothing_limits_it(quotas: Quotas) -> None:
    await quotas.settle(entry(prompt_tokens=60, cost_micro=5, device_ms=9))
    for subject in ("organization", "department:b", "key:a", "deployment:d"):
        money, device, day = (
            Limit(subject, kind, 70)
            for kind in ("money_per_month", "gpu_seconds_per_month", "tokens_per_day")
        )
        assert counted(money, device, day) == [(5, 0), (9, 0), (60, 0)]
        with pytest.raises(QuotaStopped):
            await reserve(quotas, "req_2", day, units=11)


async def test_money_and_device_time_stop_what_would_go_beyond(quotas: Quotas) -> None:
    with pytest.raises(QuotaStopped, match=r"The organization is limited to 1.00 .* per month"):
        await reserve(quotas, "req_1", MONEY, micro=1_000_001)
    await quotas.settle(entry(device_ms=1_950, cost_micro=1))
    with pytest.raises(QuotaStopped, match=r"Deployment d is limited to 2 s of device time"):
        await reserve(quotas, "req_2", MONEY, DEVICE, device_ms=51)
    await reserve(quotas, "req_3", MONEY, DEVICE, device_ms=50)


async def test_what_costs_nothing_is_not_stopped_by_spent_money(quotas: Quotas) -> None:
    await quotas.settle(entry(cost_micro=2_000_000))
    await reserve(quotas, "req_2", MONEY, micro=0)


async def test_of_several_without_room_the_one_that_takes_longest_is_named(quotas: Quotas) -> None:
    await quotas.settle(entry("req_0", prompt_tokens=100))
    await reserve(quotas, "req_1", SLOTS)
    for order in ((SLOTS, DAY), (DAY, SLOTS)):
        with pytest.raises(QuotaStopped) as refused:
            await reserve(quotas, "req_2", *order)
        assert refused.value.limit is DAY
    with pytest.raises(QuotaStopped) as refused:
        await reserve(quotas, "req_2", DAY, SLOTS, MONEY, micro=2_000_000)
    assert refused.value.limit is MONEY


async def test_a_spent_budget_is_never_worth_a_retry_a_minute_may_be(quotas: Quotas) -> None:
    await quotas.settle(entry("req_0", prompt_tokens=100))
    with pytest.raises(QuotaStopped) as spent:
        await reserve(quotas, "req_1", DAY)
    spent.value.retry_after = 1.0  # As it is just before midnight.
    assert (b"x-should-retry", b"false") in error_headers(spent.value)
    await reserve(quotas, "req_2", SLOTS)
    with pytest.raises(QuotaStopped) as busy:
        await reserve(quotas, "req_3", SLOTS)
    for wait in (1.0, 61.5, 300.0):
        busy.value.retry_after = wait
        headers = dict(error_headers(busy.value))
        assert b"x-should-retry" not in headers
        assert headers[b"retry-after"] == str(math.ceil(wait)).encode()
    busy.value.retry_after = None  # It never fits.
    assert (b"x-should-retry", b"false") in error_headers(busy.value)


async def test_a_shadow_counts_and_tells_and_stops_nothing(quotas: Quotas) -> None:
    shadows = [Limit(one.subject, one.kind, 0, shadow=True) for one in EVERY]
    answer = await reserve(quotas, "req_1", *shadows)
    assert answer.shadowed == [one.name for one in shadows]
    assert answer.headers == []
    await quotas.settle(entry(prompt_tokens=4, cost_micro=3, device_ms=2))
    assert counted(*EVERY) == [(3, 0), (4, 0), (4, 0), (2, 0), (1, 0), (0, 0)]
    stops = read_counts([(one.subject, one.kind) for one in EVERY]).counts
    assert [count.stops for count in stops] == [1] * len(EVERY)


async def test_a_request_that_never_ran_gives_back_all_but_itself(quotas: Quotas) -> None:
    for number in range(3):
        await reserve(quotas, f"req_{number}", *EVERY[:4], REQUESTS, units=30)
    assert await quotas.settle(entry("req_0", ran=False, outcome="unavailable"))
    assert counted(*EVERY[:4], REQUESTS) == [(0, 2000), (0, 60), (60, 0), (0, 200), (3, 0)]


async def test_what_a_gateway_that_died_had_reserved_is_given_back_for_every_kind(
    quotas: Quotas, redis: redis_module.Redis
) -> None:
    await reserve(quotas, "req_1", *EVERY)
    redis.zadd("assay:quota:deadlines", {"req_1": 1.0})
    assert reclaim() == 1
    assert reclaim() == 0
    assert [reserved for _, reserved in counted(*EVERY)] == [0] * len(EVERY)
    assert redis.keys(RESERVATIONS) == []


async def test_the_next_reservation_gives_back_what_ran_out(
    quotas: Quotas, redis: redis_module.Redis
) -> None:
    await reserve(quotas, "req_1", DAY, SLOTS, units=100)
    with pytest.raises(QuotaStopped):
        await reserve(quotas, "req_2", DAY, SLOTS, units=100)
    redis.zadd("assay:quota:deadlines", {"req_1": 1.0})
    await reserve(quotas, "req_2", DAY, SLOTS, units=100)


async def test_a_settlement_that_comes_after_the_reservation_ran_out_is_charged_all_the_same(
    quotas: Quotas, redis: redis_module.Redis
) -> None:
    await reserve(quotas, "req_1", *EVERY)
    redis.zadd("assay:quota:deadlines", {"req_1": 1.0})
    reclaim()
    assert await quotas.settle(entry(prompt_tokens=3, cost_micro=2, device_ms=1))
    assert counted(MONEY, DAY, DEVICE) == [(2, 0), (3, 0), (1, 0)]


async def test_metrics_tell_how_far_budgets_are_used(quotas: Quotas) -> None:
    await quotas.settle(entry(prompt_tokens=85, cost_micro=500_000, device_ms=10))
    await quotas.measure([MONEY, DAY, TOKENS, DEVICE, Limit("key:a", "tokens_per_day", 1)])
    shown = exposition()[0].decode()
    for line in (
        'assay_budget_used_ratio{kind="tokens_per_day",subject="department:b"} 0.85',
        'assay_budget_alert_percent{kind="tokens_per_day",subject="department:b"} 80.0',
        'assay_budget_alert_percent{kind="money_per_month",subject="organization"} 50.0',
        'assay_budget_alert_percent{kind="gpu_seconds_per_month",subject="deployment:d"} 0.0',
    ):
        assert line in shown
    assert 'subject="key:' not in shown
    await quotas.measure([])
    assert "assay_budget_used_ratio{" not in exposition()[0].decode()


async def test_after_a_flush_budgets_let_nothing_through_until_they_are_rebuilt(
    quotas: Quotas, redis: redis_module.Redis
) -> None:
    redis.flushall()
    for budget in (MONEY, DAY, DEVICE):
        with pytest.raises(Unavailable, match="rebuilt"):
            await reserve(quotas, "req_1", REQUESTS, budget)
    await reserve(quotas, "req_1", REQUESTS, TOKENS, SLOTS)
    redis.set(READY_KEY, 1)
    await reserve(quotas, "req_2", MONEY, DAY, DEVICE)


async def test_yesterdays_tokens_and_last_months_money_leave_room(quotas: Quotas) -> None:
    today = datetime.now(UTC)
    yesterday = today - timedelta(days=1)
    last_month = today.replace(day=1) - timedelta(days=1)
    for number, then in enumerate((yesterday, last_month)):
        moment = then.replace(hour=23, minute=59, second=59, microsecond=999_000).timestamp()
        used = entry(f"req_{number}", prompt_tokens=100, occurred_at=moment, cost_micro=10**6)
        await quotas.settle(used)
    assert counted(DAY) == [(0, 0)]
    money = 10**6 if yesterday.month == today.month else 0
    assert counted(MONEY) == [(money, 0)]


def test_the_script_knows_the_calendar(redis: redis_module.Redis) -> None:
    head = SCRIPT[: SCRIPT.index("local function budget_key")]
    script = f"""{head}
        local found = calendar(tonumber(ARGV[1]))
        return {{found.day, found.month, number(found.day_end), number(found.month_end)}}"""
    ask = redis.register_script(script)

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.dates(date(1970, 1, 1), date(2400, 12, 31)), st.integers(0, 86399))
    def agrees(day: date, second: int) -> None:
        at = calendar.timegm(day.timetuple()) * 1000 + second * 1000
        following = (day.replace(day=1) + timedelta(days=31)).replace(day=1)
        ends = [calendar.timegm(d.timetuple()) * 1000 for d in (day + timedelta(days=1), following)]
        expected = [f"{day:%Y-%m-%d}", f"{day:%Y-%m}", *(str(end) for end in ends)]
        assert [part.decode() for part in ask(args=[at])] == [
            re.sub(r"^(\d{1,3})-", lambda m: m[0].zfill(5), text) for text in expected
        ]

    agrees()


async def test_a_window_forgets_what_has_left_it(quotas: Quotas, redis: redis_module.Redis) -> None:
    for number in range(3):
        await reserve(quotas, f"req_{number}", REQUESTS)
    store_key = f"assay:quota:{REQUESTS.kind}:{REQUESTS.subject}"
    slots = [int(slot) for slot in redis.hkeys(store_key)]  # Two, if one ended meanwhile.
    redis.hdel(store_key, *slots)
    redis.hset(store_key, str(min(slots) - 13), 3)
    await reserve(quotas, "req_9", REQUESTS)
    assert len(redis.hkeys(store_key)) == 1


async def test_what_redis_does_not_take_is_held_and_blocks_until_it_does(
    quotas: Quotas, redis: redis_module.Redis
) -> None:
    ledger = Ledger(quotas)
    ledger.start()
    redis.config_set("min-replicas-to-write", 1)
    held = entry()
    try:
        await ledger.settle(Settlement(held))
        assert ledger.blocked
    finally:
        redis.config_set("min-replicas-to-write", 0)
    while ledger.blocked:
        await asyncio.sleep(0.02)
    ((_, fields),) = redis.xrange(USAGE_STREAM)
    assert UsageEntry.decode(fields[b"entry"]) == held
    await ledger.stop()


def test_refusals_beyond_the_rate_are_counted_for_the_next_one() -> None:
    limiter = RefusalLimiter()
    admitted = [limiter.admit("")[0] for _ in range(50 * ANONYMOUS_PER_S)]
    assert admitted.count(False) > 0
    assert limiter.admit("another key") == (True, 0)
