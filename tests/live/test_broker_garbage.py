"""Whatever lies on a queue, the workers that read it go on."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis

from tests.live.celery_worker import ENGINE_WORKER, controller, worker
from tests.live.test_jobs import COMPUTE, NO_TORCH, delivery, in_state
from tests.unit.workers.test_celery_message import SEALED, a_request
from tests.unit.workers.test_envelopes import OTHERS, PLACES, changed
from tests.waiting import wait_until
from workers.celery_message import inference_message
from workers.envelopes import ForeignMessage, read_message
from workers.jobs.models import JobState
from workers.wire import IDLE_QUEUE, JOB_QUEUE, dropped_key

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]
VALUES = ("x", "", "\0", -1, 2**70, 1.5, True, None, [], {}, [[]], {"a": None}, "é" * 1000)


def garbage() -> list[bytes]:
    """Every kind of message that is none, and genuine ones with another value in some place."""
    chance = random.Random(8)
    places = [place for place in PLACES if place[0] != "properties"]
    spoiled = [changed(*place, to=value) for place in places for value in VALUES]
    return [*OTHERS.values(), *chance.sample(spoiled, 120)]


def dropped(redis: Redis) -> int:
    return int(sum(count for _, count in redis.zrange(dropped_key(""), 0, -1, withscores=True)))


def test_a_compute_worker_reads_on(redis: Redis, tmp_path: Path) -> None:
    log = tmp_path / "compute.log"
    with worker(log, *COMPUTE, PYTHONPATH=NO_TORCH) as compute:
        for each in garbage():
            redis.lpush(JOB_QUEUE, each)
        job = delivery()
        wait_until(lambda: not in_state(job, JobState.QUEUED, JobState.RUNNING))
        assert in_state(job, JobState.FINISHING), job.error
        assert compute.poll() is None
        assert redis.llen(JOB_QUEUE) == 0
        assert "Unrecoverable" not in log.read_text()
        # A genuine message for the job may have been sent more than once; no other was taken.
        wait_until(lambda: dropped(redis) == len(garbage()))


@pytest.mark.parametrize("kind", ["string", "hash", "stream", "set"])
def test_a_queue_of_another_type_ends_no_worker(redis: Redis, tmp_path: Path, kind: str) -> None:
    log = tmp_path / "compute.log"
    with worker(log, *COMPUTE, PYTHONPATH=NO_TORCH) as compute:
        {
            "string": lambda: redis.set(JOB_QUEUE, "x"),
            "hash": lambda: redis.hset(JOB_QUEUE, "a", "b"),
            "stream": lambda: redis.xadd(JOB_QUEUE, {"a": "b"}),
            "set": lambda: redis.sadd(JOB_QUEUE, "x"),
        }[kind]()
        wait_until(lambda: log.read_text().count("WRONGTYPE") >= 2)
        redis.delete(JOB_QUEUE)
        job = delivery()
        wait_until(lambda: not in_state(job, JobState.QUEUED, JobState.RUNNING))
        assert compute.poll() is None


def is_taken(data: bytes) -> bool:
    with suppress(ForeignMessage):
        read_message(IDLE_QUEUE, data)
        return True
    return False


def test_an_engine_worker_reads_on(redis: Redis, tmp_path: Path) -> None:
    found = garbage()
    # Another name of its origin, for example, makes it no other message.
    genuine = [each for each in found if is_taken(each)]
    assert len(genuine) < len(found) / 4
    log = tmp_path / "engine.log"
    with worker(log, *ENGINE_WORKER) as engine, controller(tmp_path / "controller.log"):
        for each in found:
            redis.lpush(IDLE_QUEUE, each)
        # Of no gateway: the seals refuse it, and no thread is lost to it.
        for _ in range(20):
            redis.lpush(IDLE_QUEUE, inference_message(a_request(1), SEALED))
        wait_until(lambda: log.read_text().count("FORGED REQUEST refused") == 20 + len(genuine))
        assert engine.poll() is None
        assert redis.llen(IDLE_QUEUE) == 0
        assert "Unrecoverable" not in log.read_text()
        wait_until(lambda: dropped(redis) == len(found) - len(genuine))
        assert json.dumps(SEALED) not in log.read_text()
