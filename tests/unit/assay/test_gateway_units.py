"""Requests that are metered in another unit than tokens, on a real Valkey and a real gateway."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis as redis_module
from redis.asyncio import Redis as AsyncRedis

from assay.gateway.quota.quotas import Quotas, QuotaStopped
from assay.gateway.run import execution
from governance.quotas import store
from governance.quotas.maintenance import orphans_settle
from governance.quotas.models import Price
from governance.quotas.store import read_counts
from governance.quotas.wire import READY_KEY, Amount, Limit, Verdict, reserve_arguments
from governance.usage.records import USAGE_STREAM
from governance.usage.units import Unit
from tests.unit.assay.gateway_support import Reply, Stage, stage
from tests.unit.assay.test_gateway_accounts import counted, entry
from tests.waiting import wait_until
from workers.wire import Delta, Done, Failed, InferenceRequest

__all__ = ["stage"]

pytestmark = pytest.mark.sweep

MINUTE = Limit("department:b", "images_per_minute", 100)
DAY = Limit("organization", "images_per_day", 100)
MONTH = Limit("key:a", "images_per_month", 1000)
IMAGES = (MINUTE, DAY, MONTH)
TOKENS = (
    Limit("department:b", "tokens_per_minute", 100),
    Limit("department:b", "tokens_per_day", 100),
    Limit("department:b", "tokens_per_month", 100),
)
CHAT = "/v1/chat/completions"
GOOD = {"model": "painter", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}


@pytest.fixture
async def quotas(redis: redis_module.Redis) -> AsyncIterator[Quotas]:
    redis.set(READY_KEY, 1)
    client = AsyncRedis.from_url(os.environ["REDIS_URL"])
    yield Quotas(client)
    await client.aclose()


async def reserve(quotas: Quotas, number: int, *limits: Limit, units: int, unit: Unit) -> bool:
    """Return whether all of the limits had room."""
    try:
        await quotas.reserve(
            entry=entry(f"req_{number}"),
            limits=limits,
            amount=Amount(units, 1, 1, unit),
            lifetime_s=30,
        )
    except QuotaStopped:
        return False
    return True


async def test_reservations_of_images_at_the_same_time_never_overspend(quotas: Quotas) -> None:
    admitted = await asyncio.gather(
        *(reserve(quotas, n, *IMAGES, units=7, unit=Unit.IMAGES) for n in range(60))
    )
    assert sum(admitted) == 100 // 7
    assert counted(*IMAGES) == [(98, 0), (0, 98), (0, 98)]
    for number, taken in enumerate(admitted):
        if taken:
            used = entry(f"req_{number}", unit=Unit.IMAGES, units=5)
            assert await quotas.settle(used)
    assert counted(*IMAGES) == [(70, 0), (70, 0), (70, 0)]
    assert await reserve(quotas, 99, *IMAGES, units=30, unit=Unit.IMAGES)
    assert not await reserve(quotas, 98, *IMAGES, units=1, unit=Unit.IMAGES)


async def test_a_limit_on_images_binds_no_request_in_tokens_and_the_other_way_round(
    quotas: Quotas, redis: redis_module.Redis
) -> None:
    none = tuple(Limit(one.subject, one.kind, 0) for one in (*IMAGES, *TOKENS))
    assert await reserve(quotas, 1, *none[:3], units=5, unit=Unit.TOKENS)
    assert await reserve(quotas, 2, *none[3:], units=5, unit=Unit.IMAGES)
    assert not await reserve(quotas, 3, *none, units=5, unit=Unit.IMAGES)
    await quotas.settle(entry("req_1", prompt_tokens=3, completion_tokens=1))
    await quotas.settle(entry("req_2", unit=Unit.IMAGES, units=9))
    assert counted(*IMAGES[1:], *TOKENS[1:]) == [(9, 0), (9, 0), (4, 0), (4, 0)]
    redis.delete(READY_KEY)  # A request in tokens does not wait for counters of images.
    assert await reserve(quotas, 4, *IMAGES, units=5, unit=Unit.TOKENS)


async def test_the_script_itself_charges_nothing_to_a_limit_on_another_unit(
    quotas: Quotas,
) -> None:
    limits = [*IMAGES, *TOKENS]
    text = store._run(reserve_arguments("req_1", 30_000, Amount(5, 1, 1, Unit.IMAGES), limits))
    assert Verdict.read(text, limits).stopped is None
    assert counted(*limits) == [(5, 0), (0, 5), (0, 5), (0, 0), (0, 0), (0, 0)]
    store.withdraw("req_1")
    assert counted(*limits) == [(0, 0)] * 6


async def test_what_has_no_room_in_its_unit_is_told_in_words(quotas: Quotas) -> None:
    with pytest.raises(QuotaStopped, match=r"100 images per minute; this needs up to 101 images"):
        await quotas.reserve(
            entry=entry(), limits=[MINUTE], amount=Amount(101, unit=Unit.IMAGES), lifetime_s=30
        )


async def test_headers_are_those_of_the_requests_own_unit(quotas: Quotas) -> None:
    limit = Limit("key:a", "audio_seconds_per_minute", 60)
    seconds = Amount(25, unit=Unit.AUDIO_SECONDS)
    made = await quotas.reserve(
        entry=entry(), limits=[*TOKENS, *IMAGES, limit], amount=seconds, lifetime_s=30
    )
    headers = dict(made.headers)
    assert headers[b"x-ratelimit-limit-audio-seconds"] == b"60"
    assert headers[b"x-ratelimit-remaining-audio-seconds"] == b"35"
    assert len(headers) == 3


def draw(request: InferenceRequest, reply: Reply) -> None:
    """Twelve images, and tokens that are not what the task is metered in."""
    reply(Done("stop", prompt_tokens=5, completion_tokens=3, device_ms=20, units=12))


@pytest.fixture
def painter(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A deployment of a task in images. None of the tasks that ship is one yet."""
    monkeypatch.setattr(
        "assay.gateway.access.deployment_entries.task_unit", lambda task: Unit.IMAGES
    )
    Price.objects.create(deployment="painter", prompt=10**9, units={"images": 40_000})
    stage.deployment("painter", behavior=draw)
    return stage


def test_an_answer_in_images_is_charged_and_recorded_in_images(painter: Stage) -> None:
    painter.limit("images_per_day", 100)
    painter.limit("tokens_per_day", 0)
    answer = painter.post(CHAT, painter.key(), json=GOOD)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-assay-units"] == "12 images"
    (used,) = painter.entries()
    assert (used.unit, used.units, used.prompt_tokens) == ("images", 12, 0)
    assert (used.cost_micro, used.device_ms) == (12 * 40_000, 20)
    today = f"assay:quota:day:{datetime.now(UTC):%Y-%m-%d}:department:engineering"
    assert painter.redis.hgetall(today) == {b"images": b"12", b"images_reserved": b"0"}


def test_a_request_without_room_for_its_images_is_refused_and_told_so(painter: Stage) -> None:
    painter.limit("images_per_minute", 5)
    refused = painter.post(CHAT, painter.key(), json=GOOD)
    assert refused.status_code == 429
    assert refused.headers["x-assay-limit"] == "department:engineering images_per_minute"
    assert refused.headers["x-ratelimit-limit-images"] == "5"
    assert "x-assay-units" not in refused.headers
    assert "5 images per minute" in refused.json()["error"]["message"]


def test_a_request_in_tokens_says_its_tokens_and_a_stream_says_nothing(stage: Stage) -> None:
    stage.deployment("painter")
    stage.limit("images_per_minute", 0)
    token = stage.key()
    assert stage.post(CHAT, token, json=GOOD).headers["x-assay-units"] == "8 tokens"
    streamed = stage.post(CHAT, token, json={**GOOD, "stream": True})
    assert streamed.status_code == 200
    assert "x-assay-units" not in streamed.headers


def test_a_worker_that_keeps_silent_leaves_the_most_that_the_request_can_cost(
    painter: Stage, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.GATEWAY_REQUEST_TIMEOUT_S = 1
    monkeypatch.setattr(execution, "_LAST_WORD_S", 2.0)
    painter.deployment("silent", behavior=lambda request, reply: None)
    answer = painter.post(CHAT, painter.key(), json={**GOOD, "model": "silent"})
    assert answer.status_code == 504
    (used,) = painter.entries()
    assert (used.unit, used.units, used.outcome) == ("images", 9, "failed")


def test_a_request_in_images_whose_gateway_dies_is_charged_the_most_that_it_can_cost(
    painter: Stage,
) -> None:
    painter.limit("images_per_day", 100)
    admitted: list[dict[bytes, bytes]] = []

    def note(request: InferenceRequest, reply: Reply) -> None:
        admitted.append(painter.redis.hgetall("assay:quota:admitted"))
        draw(request, reply)

    painter.deployment("noting", behavior=note)
    assert painter.post(CHAT, painter.key(), json={**GOOD, "model": "noting"}).status_code == 200
    ((request_id, text),) = admitted[0].items()
    painter.redis.delete("assay:quota:settled:" + request_id.decode(), USAGE_STREAM)
    painter.redis.hset("assay:quota:admitted", request_id, text)
    painter.redis.zadd("assay:quota:admitted:deadlines", {request_id: 1.0})
    assert orphans_settle() == 1
    (used,) = painter.entries()
    assert (used.unit, used.units, used.outcome) == ("images", 9, "failed")
    assert read_counts([("department:engineering", "images_per_day")]).counts[0].used == 12 + 9


def test_a_worker_that_reports_less_than_nothing_is_not_believed(painter: Stage) -> None:
    painter.limit("images_per_minute", 50)
    painter.deployment(
        "giver", behavior=lambda request, reply: reply(Done("stop", 0, 0, units=-1000))
    )
    answer = painter.post(CHAT, painter.key(), json={**GOOD, "model": "giver"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "reply_forged")
    used = read_counts([("department:engineering", "images_per_minute")]).counts[0].used
    assert used == 0


def test_an_answer_that_breaks_after_it_began_is_charged_as_reserved(painter: Stage) -> None:
    def breaks(request: InferenceRequest, reply: Reply) -> None:
        reply(Delta("x", 1))
        reply(Failed("engine_failed", "It broke."))

    painter.deployment("broken", behavior=breaks)
    assert painter.post(CHAT, painter.key(), json={**GOOD, "model": "broken"}).status_code == 500
    (used,) = painter.entries()
    assert (used.unit, used.units, used.completion_tokens) == ("images", 9, 0)
    wait_until(lambda: not painter.redis.keys("assay:quota:reservation:*"))
