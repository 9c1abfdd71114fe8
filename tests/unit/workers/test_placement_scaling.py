"""Replicas follow the load between their bounds, without swinging, and down to zero when idle."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from redis import Redis

from governance.usage.models import UsageRecord
from tests.fleets import deployments_make, loads_all, workers_make
from workers.deployments.models import Deployment
from workers.placement.assigning import Placer, placements_update
from workers.placement.loads import Scaler
from workers.placement.scaling import BUSY_FOR_S, CALM_FOR_S, Load, Memory, replicas_next
from workers.wire import IN_USE_KEY, WANTED_KEY, deployment_queue

IDLE_S = 900.0


class Clock:
    """One deployment of 0 to 3 replicas, all of which are ready after each round."""

    def __init__(self, wanted: int = 1, least: int = 1, most: int = 3) -> None:
        self.now = 0.0
        self.wanted, self.least, self.most = wanted, least, most
        self.memory = Memory(used_at=0.0)

    def tick(self, seconds: float, load: Load, ready: int | None = None) -> int:
        """Go on for so long with a round every 2 s."""
        end = self.now + seconds
        while self.now < end:
            self.now += 2
            self.wanted, self.memory = replicas_next(
                replicas=self.wanted,
                ready=self.wanted if ready is None else ready,
                least=self.least,
                most=self.most,
                load=load,
                memory=self.memory,
                now=self.now,
                idle_s=IDLE_S,
            )
        return self.wanted


BUSY, CALM = Load(queued=20, ended_s=1), Load(ended_s=1)


def test_a_lasting_queue_adds_replicas_one_by_one_up_to_the_most() -> None:
    clock = Clock()
    assert clock.tick(BUSY_FOR_S, BUSY) == 1
    assert clock.tick(2, BUSY) == 2
    assert clock.tick(60, BUSY) == 3


def test_long_waits_count_as_a_queue_does() -> None:
    assert Clock().tick(60, Load(wait_ms=5000.0, ended_s=1)) == 3


def test_a_short_queue_or_a_replica_that_still_loads_adds_none() -> None:
    clock = Clock()
    for _burst in range(10):
        clock.tick(BUSY_FOR_S - 2, BUSY)
        assert clock.tick(2, CALM) == 1
    assert Clock().tick(60, BUSY, ready=0) == 1


def test_replicas_are_removed_only_after_a_long_calm() -> None:
    clock = Clock(wanted=3)
    assert clock.tick(CALM_FOR_S - 2, CALM) == 3
    clock.tick(2, Load(queued=1, ended_s=1))
    assert clock.tick(CALM_FOR_S, CALM) == 3
    assert clock.tick(2, CALM) == 2
    assert clock.tick(10 * CALM_FOR_S, CALM) == 1


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
    redis.lpush(deployment_queue(asleep.pk), "request")
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
    redis.lpush(deployment_queue(deployment.pk), "request")
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
