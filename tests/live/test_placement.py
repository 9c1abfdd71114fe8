"""Two engine workers, the controller and a gateway: a replica moves while requests run, and a
deployment that nothing asks for is unloaded and loaded again by the next request.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from tests.live.celery_worker import controller, worker
from tests.live.test_serving_faults import ENGINE, key
from tests.live.web_process import web
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from tests.waiting import PATIENCE_S, wait_until
from workers.deployments.models import (
    Deployment,
    DeploymentState,
    Replica,
    ReplicaState,
    WorkerKey,
)
from workers.deployments.services import deployment_create
from workers.placement.services import deployment_place
from workers.placement.settings import ReplicaSettings
from workers.wire import deployment_queue, replica_queue

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]
IDLE_S = 10


class Fleet:
    """Two engine workers of one machine, the second with the label `big`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.deployment = deployment_create(
            actor=company.developer(), release_id=release(adapter()).pk
        )
        self.headers = {"authorization": f"Bearer {key()}"}
        idle = {"ASSAY_PLACEMENT_IDLE_S": str(IDLE_S)}
        stack.enter_context(controller(folder / "controller.log", **idle))
        stack.enter_context(worker(folder / "one.log", *ENGINE, ASSAY_WORKER_LABELS="small"))
        stack.enter_context(worker(folder / "two.log", *ENGINE, ASSAY_WORKER_LABELS="big"))
        # Loading the deployment takes longer on a busy machine.
        cold = {"ASSAY_GATEWAY_COLD_START_S": str(int(PATIENCE_S))}
        self.url, _web = stack.enter_context(web(folder, **cold))
        self.place(labels=["small"])
        wait_until(lambda: self.ready_on() == ["one"])
        wait_until(lambda: self.post().status_code == 200)

    def place(self, **settings: Any) -> None:
        deployment_place(
            actor=company.person("olga", "operator"),
            deployment_id=self.deployment.pk,
            settings=ReplicaSettings(**settings),
        )

    def ready_on(self) -> list[str]:
        rows = Replica.objects.filter(deployment=self.deployment, state=ReplicaState.READY)
        return sorted(row.worker.partition("@")[0] for row in rows)

    def post(self) -> httpx.Response:
        body = {"model": "docs", "prompt": "one two", "max_tokens": 8}
        url = f"{self.url}/v1/completions"
        return httpx.post(url, json=body, headers=self.headers, timeout=2 * PATIENCE_S)


@pytest.fixture
def fleet(redis: Redis, tmp_path: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(tmp_path, stack)


def test_a_replica_moves_between_workers_and_no_request_fails(fleet: Fleet) -> None:
    stop, answers = threading.Event(), []

    def ask() -> None:
        while not stop.wait(0.01):
            answers.append(fleet.post().status_code)

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    fleet.place(labels=["big"])
    wait_until(lambda: fleet.ready_on() == ["two"])
    moved = len(answers)
    wait_until(lambda: len(answers) > moved + 50)
    fleet.place(labels=["small"])
    wait_until(lambda: fleet.ready_on() == ["one"])
    moved = len(answers)
    wait_until(lambda: len(answers) > moved + 50)
    stop.set()
    for caller in callers:
        caller.join(PATIENCE_S)
    assert set(answers) == {200}


def test_a_replica_reads_a_queue_of_its_own(fleet: Fleet, redis: Redis) -> None:
    """The worker drops a foreign message, which shows that it has read it."""
    key = WorkerKey.objects.get(worker__startswith="one@").public_key
    own = replica_queue(deployment_queue(fleet.deployment.pk), key)
    redis.lpush(own, "foreign")
    wait_until(lambda: redis.llen(own) == 0)
    fleet.place(labels=["big"])
    wait_until(lambda: fleet.ready_on() == ["two"])

    def is_left() -> bool:
        # A read that waits may take one more message.
        redis.delete(own)
        redis.lpush(own, "foreign")
        assert fleet.post().status_code == 200
        return bool(redis.llen(own))

    wait_until(is_left)


def test_an_idle_deployment_is_unloaded_and_the_next_request_loads_it(fleet: Fleet) -> None:
    fleet.place(replicas_min=0, labels=["small"])

    def state() -> str:
        return Deployment.objects.get(pk=fleet.deployment.pk).state

    wait_until(lambda: state() == DeploymentState.PENDING)
    assert fleet.ready_on() == []
    assert Deployment.objects.get(pk=fleet.deployment.pk).replicas_wanted == 0
    assert fleet.post().status_code == 200
    assert fleet.ready_on() == ["one"]
