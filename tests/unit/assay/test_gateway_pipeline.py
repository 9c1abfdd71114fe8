"""One connection for many commands: each gets its own answer; a lost connection fails them all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis as redis_module

from assay.gateway.run import pipeline as module
from assay.gateway.run.pipeline import Pipeline
from assay.local.services import Valkey
from tests.waiting import PATIENCE_S


@pytest.fixture
async def pipeline(redis: redis_module.Redis) -> AsyncIterator[Pipeline]:
    made = Pipeline(os.environ["REDIS_URL"], timeout_s=PATIENCE_S)
    yield made
    await made.aclose()


async def test_each_of_many_commands_at_once_gets_its_own_answer(pipeline: Pipeline) -> None:
    asked = [f"{number}" for number in range(1000)]
    answers = await asyncio.gather(*(pipeline.execute_command("ECHO", one) for one in asked))
    assert [answer.decode() for answer in answers] == asked


async def test_an_error_reaches_only_the_command_that_caused_it(
    pipeline: Pipeline, redis: redis_module.Redis
) -> None:
    redis.set("pipeline:text", "text")
    wrong, right = await asyncio.gather(
        pipeline.execute_command("LPUSH", "pipeline:text", 1),
        pipeline.execute_command("GET", "pipeline:text"),
        return_exceptions=True,
    )
    assert isinstance(wrong, redis_module.ResponseError)
    assert right == b"text"


async def test_a_caller_that_stops_waiting_shifts_no_answer(pipeline: Pipeline) -> None:
    leaving = asyncio.create_task(pipeline.execute_command("ECHO", "unheard"))
    staying = asyncio.create_task(pipeline.execute_command("ECHO", "heard"))
    await pipeline.execute_command("PING")
    again = asyncio.create_task(pipeline.execute_command("ECHO", "unheard"))
    await asyncio.sleep(0)
    again.cancel()
    assert await pipeline.execute_command("ECHO", "after") == b"after"
    assert (await leaving, await staying) == (b"unheard", b"heard")


async def test_a_lost_connection_fails_what_waits_and_the_next_command_makes_a_new_one(
    pipeline: Pipeline, redis: redis_module.Redis
) -> None:
    number = await pipeline.execute_command("CLIENT ID")
    waiting = asyncio.create_task(pipeline.execute_command("BLPOP", "pipeline:nothing", 0))
    await asyncio.sleep(0.05)
    redis.client_kill_filter(_id=number)
    with pytest.raises(redis_module.ConnectionError):
        await waiting
    assert await pipeline.execute_command("CLIENT ID") != number


async def test_no_command_is_repeated_after_a_lost_connection(
    pipeline: Pipeline, redis: redis_module.Redis
) -> None:
    await pipeline.execute_command("DEL", "pipeline:count")
    number = await pipeline.execute_command("CLIENT ID")
    await pipeline.execute_command("INCR", "pipeline:count")
    blocked = asyncio.create_task(pipeline.execute_command("BLPOP", "pipeline:nothing", 0))
    counted = asyncio.create_task(pipeline.execute_command("INCR", "pipeline:count"))
    await asyncio.sleep(0.05)
    redis.client_kill_filter(_id=number)
    for lost in (blocked, counted):
        with pytest.raises(redis_module.ConnectionError):
            await lost
    assert await pipeline.execute_command("GET", "pipeline:count") == b"1"


async def test_a_store_that_does_not_answer_counts_as_lost(
    pipeline: Pipeline, redis: redis_module.Redis
) -> None:
    pipeline._timeout_s = 1
    blocked = asyncio.create_task(pipeline.execute_command("BLPOP", "pipeline:nothing", 0))
    behind = asyncio.create_task(pipeline.execute_command("PING"))
    for waiting in (blocked, behind):
        with pytest.raises(redis_module.ConnectionError, match="No answer"):
            await waiting
    pipeline._timeout_s = PATIENCE_S
    assert await pipeline.execute_command("PING") == b"PONG"


async def test_more_than_so_many_commands_do_not_wait(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 2)
    await pipeline.execute_command("PING")
    answers = await asyncio.gather(
        *(pipeline.execute_command("PING") for _ in range(3)), return_exceptions=True
    )
    assert answers[:2] == [b"PONG", b"PONG"]
    assert isinstance(answers[2], redis_module.ConnectionError)


async def test_a_store_that_is_not_there_fails_every_command_that_waits_for_it(
    tmp_path: Path,
) -> None:
    made = Pipeline(f"unix://{tmp_path}/none.sock", timeout_s=1)
    answers = await asyncio.gather(
        *(made.execute_command("PING") for _ in range(20)), return_exceptions=True
    )
    assert {type(answer) for answer in answers} == {redis_module.ConnectionError}
    await made.aclose()


async def test_it_signs_in_as_its_user() -> None:
    valkey = Valkey()
    made = Pipeline(valkey.url_of("web"), timeout_s=PATIENCE_S)
    try:
        assert await made.execute_command("PING") == b"PONG"
        with pytest.raises(redis_module.exceptions.NoPermissionError):
            await made.execute_command("FLUSHALL")
    finally:
        await made.aclose()
        valkey.stop()
