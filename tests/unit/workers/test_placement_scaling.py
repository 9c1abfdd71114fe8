"""Replicas follow the wait of requests between their bounds, and go down to zero when idle."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from redis import Redis

from governance.usage.models import UsageRecord
from tests.fleets import deployments_make, loads_all, workers_make
from workers.celery_message import inference_message
from workers.deployments.models import Deployment
from workers.placement.assigning import Placer, placements_update
from workers.placement.loads import Scaler
from workers.placement.scaling import (
    CALM_FOR_S,
    LATE_FOR_S,
    LIMIT_FOR_S,
    Goal,
    Load,
    Memory,
    replicas_next,
)
from workers.queue_ages import Queue, read_queues
from workers.wire import IN_USE_KEY, WANTED_KEY, InferenceRequest, deployment_queue

IDLE_S = 900.0
TARGET_S = 5.0


class Clock:
    """One deployment of 0 to 8 replicas, all of which are ready after each round."""

    def __init__(self, wanted: int = 1, least: int = 1, most: int = 8) -> None:
        self.now = 0.0
        self.wanted = wanted
        self.goal = Goal(least, most, TARGET_S, IDLE_S)
        self.memory = Memory(used_at=0.0)

    def tick(self, seconds: float, load: Load, ready: int | None = None) -> int:
        """Go on for so long with a round every 2 s."""
        end = self.now + seconds
        while self.now < end:
            self.now += 2
            self.wanted, self.memory = replicas_next(
                replicas=self.wanted,
                ready=self.wanted if ready is None else ready,
                goal=self.goal,
                load=load,
                memory=self.memory,
                now=self.now,
            )
        return self.wanted


LATE, CALM = Load(queued=20, oldest_s=6.0, ended_s=1), Load(ended_s=1)


def test_a_lasting_wait_adds_replicas_in_proportion_up_to_the_most() -> None:
    clock = Clock()
    assert clock.tick(LATE_FOR_S, LATE) == 1
    assert clock.tick(2, LATE) == 2
    clock.tick(LATE_FOR_S + 2, LATE)
    assert clock.wanted == 3
    far_behind = replace(LATE, oldest_s=60.0)
    assert clock.tick(LATE_FOR_S + 2, far_behind) == 6
    assert clock.tick(60, far_behind) == 8


def test_waits_in_the_engine_count_as_those_in_the_queue_do() -> None:
    assert Clock().tick(60, Load(waited_s=6.0, ended_s=1)) == 8


def test_a_short_wait_or_a_replica_that_still_loads_adds_none() -> None:
    clock = Clock()
    for _burst in range(10):
        clock.tick(LATE_FOR_S, LATE)
        assert clock.tick(2, CALM) == 1
    assert Clock().tick(60, LATE, ready=0) == 1
    assert Clock(wanted=2).tick(60, LATE, ready=1) == 2


def test_waits_that_fall_by_themselves_add_none() -> None:
    clock = Clock(wanted=2)
    for age in range(60, 4, -2):
        clock.tick(2, replace(LATE, oldest_s=float(age)))
    assert clock.wanted == 2


def test_replicas_are_removed_only_after_a_long_calm() -> None:
    clock = Clock(wanted=3)
    assert clock.tick(CALM_FOR_S, CALM) == 3
    clock.tick(2, Load(queued=1, ended_s=1))
    assert clock.tick(CALM_FOR_S, CALM) == 3
    assert clock.tick(2, CALM) == 2
    assert clock.tick(10 * CALM_FOR_S, CALM) == 1


def test_replicas_stay_at_a_rate_at_which_fewer_were_too_slow() -> None:
    clock = Clock()
    clock.tick(LATE_FOR_S + 2, replace(LATE, rate=100.0))
    assert clock.wanted == 2
    assert clock.tick(4 * CALM_FOR_S, replace(CALM, rate=80.0)) == 2
    assert clock.tick(2, replace(CALM, rate=60.0)) == 1


def test_a_limit_of_long_ago_is_tried_again() -> None:
    clock = Clock()
    clock.tick(LATE_FOR_S + 2, replace(LATE, rate=100.0))
    assert clock.tick(LIMIT_FOR_S - 2, replace(CALM, rate=80.0)) == 2
    assert clock.tick(4, replace(CALM, rate=80.0)) == 1


def test_only_a_minimum_of_zero_lets_the_last_replica_go_when_idle() -> None:
    assert Clock(least=1).tick(3 * IDLE_S, Load()) == 1
    clock = Clock(least=0)
    assert clock.tick(IDLE_S - 2, Load()) == 1
    assert clock.tick(2, Load()) == 0
    assert clock.tick(60, Load()) == 0
    assert clock.tick(60, Load(ended_s=30)) == 0
    assert clock.tick(2, Load(requested=True)) == 1
    assert clock.tick(IDLE_S - 4, Load()) == 1


def test_a_queued_request_wakes_what_is_scaled_to_zero() -> None:
    assert Clock(wanted=0, least=0).tick(2, Load(queued=1)) == 1


class Service:
    """A simulated deployment in steps of a second: requests arrive evenly, a full queue refuses
    them, each replica answers `PACE` of them a second, and a new one is ready after its cold start.
    """

    PACE = 10.0
    COLD_START_S = 40
    QUEUE_MAX = 1000

    def __init__(self, least: int = 1, most: int = 16) -> None:
        self.clock = Clock(wanted=max(1, least), least=least, most=most)
        self.now = 0
        self.queue: deque[int] = deque()
        self.ready_at = [0]
        self.ended: deque[int] = deque(maxlen=15)
        self.owed = self.credit = 0.0
        self.wanted: list[int] = []
        self.ages: list[float] = []

    def run(self, seconds: int, per_s: float) -> None:
        for _ in range(seconds):
            self.now += 1
            self.owed += per_s
            room = self.QUEUE_MAX - len(self.queue)
            self.queue.extend([self.now] * min(room, int(self.owed)))
            self.owed %= 1
            ready = sum(at <= self.now for at in self.ready_at)
            self.credit = min(self.credit, 1) + self.PACE * ready
            answered = min(len(self.queue), int(self.credit))
            self.credit -= answered
            for _request in range(answered):
                self.queue.popleft()
            self.ended.append(answered)
            age = float(self.now - self.queue[0]) if self.queue else 0.0
            self.ages.append(age)
            load = Load(len(self.queue), age, 0.0, sum(self.ended) / 15, 0.0 if answered else None)
            if self.now % 2 == 0:
                self._scale(load, ready)

    def _scale(self, load: Load, ready: int) -> None:
        wanted = self.clock.tick(2, load, ready)
        self.wanted.append(wanted)
        while len(self.ready_at) < wanted:
            self.ready_at.append(self.now + self.COLD_START_S)
        del self.ready_at[wanted:]

    def turns(self) -> int:
        """Number of times that a rise follows a fall, or a fall a rise."""
        steps = [b - a for a, b in pairwise(self.wanted) if a != b]
        return sum((a < 0) != (b < 0) for a, b in pairwise(steps))


@pytest.mark.parametrize("per_s", [3.0, 9.0, 15.0, 42.0, 77.0, 95.0])
def test_a_constant_load_does_not_swing(per_s: float) -> None:
    service = Service()
    service.run(4 * 3600, per_s)
    needed = -(-per_s // Service.PACE)
    assert needed <= service.wanted[-1] <= 2 * needed
    assert service.turns() <= 1
    assert max(service.ages[3600:]) <= TARGET_S


def test_a_spike_is_met_within_a_few_cold_starts_and_left_slowly() -> None:
    service = Service()
    service.run(1200, 5.0)
    service.run(900, 70.0)
    until_met = (
        next(at for at in range(1200, 2100) if max(service.ages[at:2100]) <= TARGET_S) - 1200
    )
    assert until_met <= 6 * Service.COLD_START_S
    service.run(4 * 3600, 5.0)
    assert service.wanted[-1] == 1
    assert service.turns() == 1


def test_a_day_of_waves_adds_and_removes_once_for_each_rise_and_fall() -> None:
    service = Service()
    for per_s in (5.0, 25.0, 60.0, 25.0) * 3:
        service.run(3600, per_s)
    # Two rises of the load in each of three waves, each followed by a fall to what it needs.
    assert service.turns() == 11


@pytest.mark.django_db
def test_the_controller_reads_queues_requests_and_the_ledger(
    redis: Redis, django_assert_num_queries: Any, settings: Any
) -> None:
    workers_make(2)
    deployments = deployments_make(4)
    fixed, asleep, asked, used = deployments
    Deployment.objects.exclude(pk=fixed.pk).update(replicas_min=0, replicas_wanted=0)
    Deployment.objects.filter(pk=used.pk).update(replicas_wanted=1)
    redis.zadd(WANTED_KEY, {str(asked.pk): time.time(), "1000000": time.time() - 3600, "x": 1e12})
    scaler = Scaler()
    with django_assert_num_queries(3):
        assert scaler.run() == 1
    wanted = dict(Deployment.objects.values_list("pk", "replicas_wanted"))
    assert wanted == {fixed.pk: 1, asleep.pk: 0, asked.pk: 1, used.pk: 1}
    assert redis.zcard(WANTED_KEY) == 2
    # A request that was sent just before the last replica ended; its gateway reports that it runs.
    redis.lpush(deployment_queue(asleep.pk), "request")
    redis.zadd(IN_USE_KEY, {str(asleep.pk): time.time()})
    settings.PLACEMENT_IDLE_S = 60
    redis.delete(WANTED_KEY)
    scaler._memory = {pk: replace(each, used_at=each.used_at - 61) for pk, each in _of(scaler)}
    UsageRecord.objects.create(
        request_id="r1",
        occurred_at=timezone.now(),
        department="fleet",
        key_public_id="k",
        deployment=used.name,
        version_digest="d",
        endpoint="/v1/completions",
        outcome="ok",
    )
    assert scaler.run() == 2
    wanted = dict(Deployment.objects.values_list("pk", "replicas_wanted"))
    assert wanted == {fixed.pk: 1, asleep.pk: 1, asked.pk: 0, used.pk: 1}
    scaler.close()


def test_a_queue_states_the_time_of_its_oldest_request(redis: Redis) -> None:
    queue = deployment_queue(1)
    for sent_at in (1_900_000_000.25, 1_900_000_007.0):
        request = InferenceRequest("r", 1, "docs", "d" * 64, "s", {}, enqueued_at=sent_at)
        redis.lpush(queue, inference_message(request, {"text": "x" * 5000}))
    redis.lpush(deployment_queue(2), "not a message")
    redis.set(deployment_queue(3), "not a queue")
    assert read_queues(redis, [1, 2, 3, 4]) == {
        1: Queue(2, 1_900_000_000.25), 2: Queue(1, None), 3: Queue(0, None), 4: Queue(0, None),
    }  # fmt: skip


@pytest.mark.django_db
def test_requests_that_wait_longer_than_the_deployments_target_add_a_replica(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty, patient = deployments_make(2)
    Deployment.objects.update(replicas_max=2)
    Deployment.objects.filter(pk=patient.pk).update(queue_age_s=60)
    workers_make(2)
    placements_update()
    loads_all()
    for each in (hasty, patient):
        request = InferenceRequest(
            "r", each.pk, each.name, "d" * 64, "s", {}, enqueued_at=time.time() - 20
        )
        redis.lpush(deployment_queue(each.pk), inference_message(request, {}))
    scaler = Scaler()
    assert scaler.run() == 0
    later = time.monotonic() + LATE_FOR_S
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert scaler.run() == 1
    scaler.close()
    wanted = dict(Deployment.objects.values_list("pk", "replicas_wanted"))
    assert wanted == {hasty.pk: 2, patient.pk: 1}


def _of(scaler: Scaler) -> list[tuple[int, Memory]]:
    return list(scaler._memory.items())


@pytest.mark.django_db
def test_requests_that_run_or_took_long_keep_a_replica(redis: Redis, settings: Any) -> None:
    """A record has the moment at which its request began."""
    settings.PLACEMENT_IDLE_S = 20
    workers_make(1)
    running, long, idle = deployments_make(3)
    Deployment.objects.update(replicas_min=0)
    redis.zadd(IN_USE_KEY, {str(running.pk): time.time() - 3, str(idle.pk): time.time() - 90})
    for name, total_ms in ((long.name, 25_000), (idle.name, 100)):
        UsageRecord.objects.create(
            request_id=name,
            occurred_at=timezone.now() - timedelta(seconds=30),
            department="fleet",
            key_public_id="k",
            deployment=name,
            version_digest="d",
            endpoint="/v1/completions",
            outcome="ok",
            total_ms=total_ms,
        )
    scaler = Scaler()
    scaler.run()
    scaler._memory = {pk: replace(each, used_at=each.used_at - 60) for pk, each in _of(scaler)}
    assert scaler.run() == 1
    wanted = dict(Deployment.objects.values_list("pk", "replicas_wanted"))
    assert wanted == {running.pk: 1, long.pk: 1, idle.pk: 0}
    assert redis.zcard(IN_USE_KEY) == 1
    scaler.close()


@pytest.mark.django_db
def test_a_number_that_was_set_elsewhere_begins_a_new_calm(redis: Redis, settings: Any) -> None:
    settings.PLACEMENT_IDLE_S = 20
    deployments_make(1)
    Deployment.objects.update(replicas_min=0, replicas_max=2)
    scaler = Scaler()
    scaler.run()
    scaler._memory = {pk: replace(each, used_at=each.used_at - 60) for pk, each in _of(scaler)}
    Deployment.objects.update(replicas_wanted=2)
    assert scaler.run() == 0
    scaler.close()


@pytest.mark.django_db
def test_a_controller_that_does_not_place_does_not_scale(redis: Redis) -> None:
    (deployment,) = deployments_make(1)
    Deployment.objects.update(replicas_min=0, replicas_wanted=0)
    redis.zadd(WANTED_KEY, {str(deployment.pk): time.time()})
    other, placer = connection.copy(), Placer()
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("INSERT INTO governance_namedlock (name) VALUES ('placement')")
            assert placer.run() is None
            assert Deployment.objects.get().replicas_wanted == 0
            cursor.execute("ROLLBACK")
    finally:
        other.close()
    placer.run()
    assert Deployment.objects.get().replicas_wanted == 1
    placer.close()


@pytest.mark.django_db
def test_nothing_is_read_while_nothing_may_scale(django_assert_num_queries: Any) -> None:
    deployments_make(3)
    scaler = Scaler()
    with django_assert_num_queries(1):
        assert scaler.run() == 0


@pytest.mark.django_db
def test_what_is_scaled_up_is_placed_on_another_worker(redis: Redis) -> None:
    workers_make(2)
    deployments_make(1)
    placements_update()
    loads_all()
    Deployment.objects.update(replicas_max=2, replicas_wanted=2)
    placements_update()
    found = Deployment.objects.get().placements.values_list("worker", flat=True)
    assert sorted(found) == ["node-000/engine", "node-001/engine"]
