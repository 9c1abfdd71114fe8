"""Four gateway processes and one budget: what only processes can show."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from governance.quotas.models import Price, QuotaLimit
from governance.quotas.reconcile import quotas_reconcile
from governance.quotas.store import read_counts, reclaim
from governance.usage.collector import collect_once
from governance.usage.models import UsageRecord
from tests.live.test_gateway import BODY, CHAT, engine, post
from tests.live.web_process import web
from tests.unit.assay.gateway_support import Stage, stage
from tests.waiting import wait_until

__all__ = ["stage"]

pytestmark = pytest.mark.live
PROCESSES, CALLS = 4, 100


@pytest.fixture
def gateways(stage: Stage, tmp_path: Path) -> Iterator[list[str]]:
    """The addresses of four gateway processes before one engine worker."""
    deployment = stage.deployment(behavior=None)
    with ExitStack() as stack:
        stack.enter_context(engine(tmp_path, deployment.pk))
        with ThreadPoolExecutor(PROCESSES) as pool:
            started = list(pool.map(lambda _: web(tmp_path), range(PROCESSES)))
        yield [stack.enter_context(one)[0] for one in started]


def hundred_at_once(urls: list[str], token: str) -> Counter[int]:
    with ThreadPoolExecutor(CALLS) as pool:
        answers = pool.map(lambda n: post(urls[n % len(urls)], token), range(CALLS))
        return Counter(answer.status_code for answer in answers)


def test_of_a_hundred_at_once_on_four_processes_exactly_as_many_pass_as_the_quota_says(
    stage: Stage, gateways: list[str]
) -> None:
    # Every call reserves 11 tokens (a prompt of one, an answer of ten) and uses 6.
    Price.objects.create(completion=10**6)
    stage.limit("requests_per_minute", 37)
    assert hundred_at_once(gateways, stage.key()) == {200: 37, 429: 63}

    QuotaLimit.objects.all().delete()
    stage.limit("money_per_month", 37 + 23)
    stage.limit("tokens_per_minute", 10**6)
    statuses = hundred_at_once(gateways, stage.key())
    # Each reserves 10 and uses 1: how many pass depends on how many are under way, and never does
    # what they used and what they have reserved exceed the limit.
    (money,) = read_counts([("department:engineering", "money_per_month")]).counts
    assert statuses[200] + statuses[429] == CALLS
    assert money.reserved == 0
    assert money.used == 37 + statuses[200] <= 60

    while collect_once(stage.redis, consumer="test", block_ms=1):
        pass
    assert UsageRecord.objects.count() == 37 + statuses[200]
    assert sum(UsageRecord.objects.values_list("cost_micro", flat=True)) == money.used
    assert quotas_reconcile(repair=False).drifts == []


def test_a_gateway_that_is_killed_holds_nothing_for_ever(stage: Stage, tmp_path: Path) -> None:
    deployment = stage.deployment(behavior=None)
    stage.limit("tokens_per_day", 1000)
    stage.limit("concurrent_requests", 1)
    token = stage.key()
    slowly = {**BODY, "stream": True, "messages": [{"role": "user", "content": "slowly"}]}
    headers = {"authorization": f"Bearer {token}"}
    counters = [
        ("department:engineering", kind) for kind in ("tokens_per_day", "concurrent_requests")
    ]
    with (
        engine(tmp_path, deployment.pk),
        web(tmp_path) as (url, server),
        httpx.stream("POST", f"{url}{CHAT}", json=slowly, headers=headers) as answer,
    ):
        assert answer.status_code == 200
        reserved = [count.reserved for count in read_counts(counters).counts]
        assert reserved[0] >= 10
        assert reserved[1] == 1
        os.killpg(server.pid, signal.SIGKILL)
        wait_until(lambda: server.poll() is not None)
    (request_id,) = stage.redis.zrange("assay:quota:deadlines", 0, -1)
    # Two minutes and a grace later; the clock is Redis's own, so the deadline is moved instead.
    stage.redis.zadd("assay:quota:deadlines", {request_id: 1})
    stage.redis.zadd("assay:quota:concurrent_requests:department:engineering", {request_id: 1})
    assert reclaim() == 1
    assert [count.reserved for count in read_counts(counters).counts] == [0, 0]
    assert quotas_reconcile(repair=False).drifts == []
