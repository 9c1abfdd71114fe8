"""The controller assigns deployments to workers, in a fixed number of queries."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone
from redis import Redis

from governance.database.locks import lock
from governance.people.models import Person
from tests.fleets import GB, deployments_make, loads_all, workers_make
from tests.waiting import PATIENCE_S
from workers.deployments.models import Deployment, Replica, ReplicaState, WorkerKey
from workers.deployments.worker_keys import worker_key_register
from workers.dispatch import wake_placement
from workers.nodes.models import Node
from workers.placement.assigning import SILENCE_S, Placer, placements_update
from workers.placement.capacity import Capacity
from workers.placement.models import Placement
from workers.placement.needs import BASE_FIXED, OWN_FIXED, Layer, need_of
from workers.placement.planning import ASLEEP, WAITS, Plan
from workers.placement.reading import deployments_assignable
from workers.wire import DEPLOYMENTS_CHANNEL, wake_message, wakes

pytestmark = pytest.mark.django_db
# The lock, nodes, workers, deployments, failed and ready replicas, placements, in a savepoint.
READS = 9 + 1


def placed() -> Plan:
    found = placements_update()
    assert found is not None
    return found


def places() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, worker in Placement.objects.values_list("deployment__name", "worker"):
        found.setdefault(name, []).append(worker)
    return {name: sorted(workers) for name, workers in sorted(found.items())}


@pytest.mark.parametrize(("workers", "deployments"), [(4, 10), (12, 40)])
def test_the_number_of_queries_does_not_grow_with_the_fleet(
    workers: int, deployments: int, django_assert_num_queries: Any
) -> None:
    with transaction.atomic():
        lock("placement")  # For the first time, which takes more.
    workers_make(workers)
    deployments_make(deployments)
    with django_assert_num_queries(READS + 1):
        assert len(placed().moves) == deployments
    loads_all()
    with django_assert_num_queries(READS):
        assert placed() == Plan()
    WorkerKey.objects.filter(worker=Placement.objects.all()[0].worker).update(seen_at=None)
    with django_assert_num_queries(READS + 3):
        assert placed().moves


def test_a_worker_that_is_silent_loses_its_deployments_to_another() -> None:
    workers_make(2)
    deployments_make(1)
    placed()
    assert places() == {"fleet-0": ["node-000/engine"]}
    long_ago = timezone.now() - timedelta(seconds=SILENCE_S + 1)
    WorkerKey.objects.filter(worker="node-000/engine").update(seen_at=long_ago)
    assert Placer().run() == Plan()  # It has not listened for long enough to tell.
    placed()
    assert places() == {"fleet-0": ["node-001/engine"]}
    assert Placement.objects.get().reason == "node-000/engine does not report."


def test_a_draining_node_is_emptied_and_a_revoked_one_is_lost() -> None:
    workers_make(2)
    deployments_make(1)
    placed()
    loads_all()
    maker = Person.objects.get()
    node = Node.objects.create(
        name="node-000", state="draining", public_key="ab" * 32, created_by=maker
    )
    placed()
    assert places() == {"fleet-0": ["node-000/engine", "node-001/engine"]}
    Placement.objects.filter(worker="node-001/engine").delete()
    Node.objects.filter(pk=node.pk).update(state="revoked")
    placed()
    assert places() == {"fleet-0": ["node-001/engine"]}


def test_what_fits_nowhere_is_pending_and_its_message_states_what_it_lacks() -> None:
    deployments_make(1)
    deployment = Deployment.objects.get()
    workers_make(1, memory=2 * GB)
    placed()
    deployment.refresh_from_db()
    assert deployment.message == "Needs 2.4 GB on one worker; the largest free is 2.0 GB."
    WorkerKey.objects.update(memory=3 * GB)
    placed()
    deployment.refresh_from_db()
    assert deployment.message == WAITS


def test_a_load_that_failed_is_tried_on_another_worker_and_later_there_again() -> None:
    workers_make(2)
    deployments_make(1)
    placed()
    failed = Replica.objects.create(
        deployment=Deployment.objects.get(),
        worker="node-000/engine",
        state=ReplicaState.FAILED,
        failures=1,
        heartbeat_at=timezone.now(),
        retry_at=timezone.now() + timedelta(minutes=5),
    )
    placed()
    assert places() == {"fleet-0": ["node-001/engine"]}
    Replica.objects.create(
        deployment=Deployment.objects.get(),
        worker="node-001/engine",
        state=ReplicaState.FAILED,
        failures=1,
        heartbeat_at=timezone.now(),
        retry_at=timezone.now() + timedelta(minutes=5),
    )
    placed()
    assert places() == {"fleet-0": ["node-001/engine"]}
    Replica.objects.filter(pk=failed.pk).update(retry_at=timezone.now())
    placed()
    assert places() == {"fleet-0": ["node-000/engine"]}


def test_a_stopped_deployment_loses_its_places() -> None:
    workers_make(1)
    deployments_make(2)
    placed()
    Deployment.objects.filter(name="fleet-0").update(state="stopped")
    placed()
    assert places() == {"fleet-1": ["node-000/engine"]}


def test_no_replica_is_placed_of_what_is_scaled_to_zero() -> None:
    workers_make(1)
    deployments_make(1)
    Deployment.objects.update(replicas_min=0, replicas_wanted=0)
    placed()
    assert places() == {}
    assert Deployment.objects.get().message == ASLEEP


def test_what_is_scaled_to_zero_and_says_so_is_not_read_again() -> None:
    workers_make(1)
    awake, _asleep = deployments_make(2)
    Deployment.objects.exclude(pk=awake.pk).update(replicas_min=0, replicas_wanted=0)
    assert len(deployments_assignable([])) == 2
    placed()
    assert [row["pk"] for row in deployments_assignable([])] == [awake.pk]
    Deployment.objects.update(replicas_min=0, replicas_wanted=0)
    placed()
    assert places() == {}
    Deployment.objects.update(replicas_wanted=1)
    placed()
    assert len(places()) == 2
    assert set(Deployment.objects.values_list("message", flat=True)) == {WAITS}


def test_only_workers_whose_assignments_change_are_woken(
    redis: Redis, django_capture_on_commit_callbacks: Any
) -> None:
    workers_make(3)
    deployments_make(1)
    with redis.pubsub(ignore_subscribe_messages=True) as heard:  # type: ignore[no-untyped-call]
        heard.subscribe(DEPLOYMENTS_CHANNEL)
        heard.get_message(timeout=PATIENCE_S)
        with django_capture_on_commit_callbacks(execute=True):
            placed()
        with django_capture_on_commit_callbacks(execute=True):
            wake_placement()
        messages = [heard.get_message(timeout=PATIENCE_S)["data"].decode() for _ in range(2)]
    woken = [
        [name for name in ("node-000/engine", "node-001/engine") if wakes(each, name)]
        for each in messages
    ]
    assert woken == [["node-000/engine"], []]


@pytest.mark.parametrize(
    ("message", "worker", "woken"),
    [
        ("", "engine", True),
        (wake_message(["n1/engine", "e2@h"]), "engine", True),
        (wake_message(["n1/engine", "e2@h"]), "e2@h", True),
        (wake_message(["n1/engine", "e2@h"]), "gine", False),
        (wake_message(["n1/engine", "e2@h"]), "e2", False),
        (wake_message([]), "engine", False),
    ],
)
def test_a_worker_knows_the_messages_that_wake_it(message: str, worker: str, woken: bool) -> None:
    assert wakes(message, worker) is woken


def test_one_controller_places_at_a_time() -> None:
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("INSERT INTO governance_namedlock (name) VALUES ('placement')")
            assert placements_update() is None
            cursor.execute("ROLLBACK")
    finally:
        other.close()
    assert placements_update() == Plan()


def test_a_worker_reports_what_it_has() -> None:
    capacity = Capacity(memory=3 * GB, device="cuda", devices=2, labels=("eu", "fast"))
    worker_key_register(worker="e1", public_key="ab" * 32, engines=["own"], capacity=capacity)
    row = WorkerKey.objects.get()
    assert (row.memory, row.device, row.devices, row.labels) == (
        3 * GB,
        "cuda",
        2,
        ["eu", "fast"],
    )


def test_the_need_is_a_fifth_more_than_the_weights_and_a_fixed_part() -> None:
    base, adapter, prompt = (
        Layer("base", "b", 1000),
        Layer("adapter", "a", 100),
        Layer("prompt", "p", 10),
    )
    names = {"task": "text-generation", "engine": "own", "precision": "stored"}
    need = need_of([prompt, adapter, base], **names)
    assert (need.base_bytes, need.own_bytes) == (1200 + BASE_FIXED, 132 + OWN_FIXED)
    assert need_of([adapter, base], **names).base == need.base
    assert need_of([adapter, base], **{**names, "precision": "bfloat16"}).base != need.base
    # A full fine-tune stands on a base, whose files it does not load.
    full = need_of([Layer("full", "f", 500), base], **names)
    assert (full.base_bytes, full.own_bytes) == (600 + BASE_FIXED, OWN_FIXED)
