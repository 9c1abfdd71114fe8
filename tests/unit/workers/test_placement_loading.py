"""Every worker loads only what it is assigned, and lets go of the rest without a failed request."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator

import pytest
from django.utils import timezone

from governance.errors import Unavailable
from registry.catalog import TASKS, task_catalog
from tests.unit.workers import company, echo
from tests.unit.workers.releases import adapter, release
from workers.celery_tasks.hosting import EngineHost
from workers.control.direct import DirectControl
from workers.control.protocol import ReplicaReport
from workers.deployments import reconciler
from workers.deployments.models import Deployment, Replica, ReplicaState
from workers.deployments.reconciler import Reconciler
from workers.deployments.services import deployment_create, deployment_stop, replicas_heartbeat
from workers.deployments.worker_keys import worker_key_register
from workers.nodes.engine_side import node_assignments
from workers.nodes.models import Node
from workers.placement.assigning import placements_update
from workers.placement.capacity import Capacity
from workers.placement.models import Placement
from workers.wire import deployment_queue

pytestmark = pytest.mark.django_db
GB = 10**9


class EngineWorker:
    """An engine worker of a node without a broker. `busy` are deployments that answer a request."""

    def __init__(self, node: str) -> None:
        self.name = f"{node}/engine"
        self.host = EngineHost(DirectControl())
        self.queues: set[str] = set()
        self.busy: set[int] = set()
        self.loop = Reconciler(
            self.host,
            DirectControl(),
            worker=self.name,
            consume=self.queues.add,
            cease=self.queues.discard,
            answers=self.busy.__contains__,
            longest_s=60,
        )
        worker_key_register(
            worker=self.name,
            public_key="ab" * 32,
            engines=["own"],
            capacity=Capacity(memory=GB),
        )

    def reconcile(self) -> None:
        replicas_heartbeat(worker=self.name, engines=["own"])
        self.loop.settle()
        self.loop.load_missing(threading.Event())
        self.loop.settle()

    @property
    def loaded(self) -> set[int]:
        return set(self.host.loaded())


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EngineWorker]]:
    task = TASKS["text-generation"]
    engine = "tests.unit.workers.echo:EchoEngine"
    monkeypatch.setitem(task_catalog().tasks, task.name, dataclasses.replace(task, engine=engine))
    monkeypatch.setattr(reconciler, "QUIET_S", 0.0)
    found = [EngineWorker(name) for name in ("a", "b", "c")]
    yield found
    for each in found:
        each.host.close()
    assert echo.OPEN == []


def deployed(name: str, replicas: int = 1) -> Deployment:
    approved = release(adapter(name.encode()), name=name)
    made = deployment_create(actor=company.developer(), release_id=approved.pk)
    Deployment.objects.filter(pk=made.pk).update(
        replicas_min=replicas, replicas_max=replicas, replicas_wanted=replicas
    )
    return made


def assigned(worker: EngineWorker) -> set[int]:
    return set(Placement.objects.filter(worker=worker.name).values_list("deployment_id", flat=True))


def drain(node: str) -> None:
    Node.objects.create(
        name=node,
        state="draining",
        public_key=node * 64,
        created_by=company.model("smol", "text-generation").created_by,
    )


def test_every_worker_loads_only_what_it_is_assigned(workers: list[EngineWorker]) -> None:
    for number in range(4):
        deployed(f"d{number}", replicas=1 + number % 2)
    placements_update()
    for worker in workers:
        worker.reconcile()
        assert worker.loaded == assigned(worker)
        assert worker.queues == {deployment_queue(pk) for pk in worker.loaded}
    assert [len(assigned(worker)) for worker in workers] == [4, 2, 0]
    assert Placement.objects.count() == Replica.objects.filter(state="ready").count()


def test_a_worker_without_assignments_loads_nothing(workers: list[EngineWorker]) -> None:
    deployed("d")
    workers[0].reconcile()
    assert workers[0].loaded == set()
    assert not Replica.objects.exists()


def test_a_move_loads_the_new_copy_first_and_lets_running_requests_end(
    workers: list[EngineWorker],
) -> None:
    old, new, _third = workers
    deployment = deployed("d")
    placements_update()
    old.reconcile()
    drain("a")
    old.busy.add(deployment.pk)
    placements_update()
    old.reconcile()
    assert old.queues == {deployment_queue(deployment.pk)}
    new.reconcile()
    assert new.loaded == old.loaded == {deployment.pk}
    placements_update()
    assert assigned(old) == set()
    # It takes no more requests, answers what it has, and gateways no longer address it.
    old.reconcile()
    assert (old.queues, old.loaded) == (set(), {deployment.pk})
    assert old.host.leased(deployment.pk)
    assert Replica.objects.get(worker=old.name).state == "stopped"
    node = Node.objects.get(name="a")
    (still,) = node_assignments(node=node, worker="engine", engines=["own"], loaded=[deployment.pk])
    assert still.leaving
    assert Deployment.objects.get(pk=deployment.pk).state == "serving"
    old.busy.clear()
    old.reconcile()
    assert old.loaded == set()
    assert Replica.objects.get(worker=new.name).state == "ready"


def test_a_stop_unloads_at_once_although_requests_still_run(workers: list[EngineWorker]) -> None:
    old = workers[0]
    deployment = deployed("d")
    placements_update()
    old.reconcile()
    old.busy.add(deployment.pk)
    Placement.objects.all().delete()
    old.loop.settle()
    assert old.loaded == {deployment.pk}
    deployment_stop(actor=company.person("lea", "lead", "clinical"), deployment_id=deployment.pk)
    old.loop.settle()
    assert old.loaded == set()


def test_a_copy_that_is_assigned_again_while_it_leaves_goes_on(workers: list[EngineWorker]) -> None:
    old = workers[0]
    deployment = deployed("d")
    placements_update()
    old.reconcile()
    old.busy.add(deployment.pk)
    Placement.objects.all().delete()
    old.loop.settle()
    assert old.queues == set()
    Placement.objects.create(deployment=deployment, worker=old.name, since=timezone.now())
    old.loop.settle()
    assert old.queues == {deployment_queue(deployment.pk)}
    assert Replica.objects.get().state == "ready"


def test_a_load_that_fails_for_lack_of_something_is_done_by_another_worker(
    workers: list[EngineWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _third = workers
    deployed("d")
    placements_update()

    def full(*_given: object) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(first.host, "load", full)
        first.reconcile()
    assert Replica.objects.get().state == "failed"
    placements_update()
    assert (assigned(first), len(assigned(second))) == (set(), 1)
    second.reconcile()
    assert Deployment.objects.get().state == "serving"
    # It is not tried on the first again, and the failure there raises no alarm.
    placements_update()
    first.reconcile()
    assert first.loaded == set()


class Outage(DirectControl):
    """A control plane that does not hear that copies ended, while `away`."""

    away = False

    def replica_report(self, *, worker: str, report: ReplicaReport) -> str:
        if self.away and report.state is ReplicaState.STOPPED:
            raise Unavailable("The control plane does not answer.")
        return super().replica_report(worker=worker, report=report)


def test_an_end_that_was_not_heard_is_reported_again(workers: list[EngineWorker]) -> None:
    old = workers[0]
    control = old.loop._control = old.loop._reports._control = Outage()
    deployment = deployed("d")
    placements_update()
    old.reconcile()
    Placement.objects.all().delete()
    control.away = True
    old.loop.settle()
    old.loop.settle()
    assert (old.loaded, Replica.objects.get().state) == (set(), "ready")
    control.away = False
    old.loop.settle()
    assert Replica.objects.get().state == "stopped"
    assert deployment_queue(deployment.pk) not in old.queues


def test_a_worker_registers_as_soon_as_the_control_plane_answers_and_when_it_was_forgotten(
    workers: list[EngineWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, stop, tries = workers[0], threading.Event(), []

    def register() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise Unavailable("The control plane does not answer.")
        if len(tries) == 3:
            stop.set()

    def settle() -> None:
        worker.loop._begun.clear()  # As the heartbeat does that finds no row.

    monkeypatch.setattr(worker.loop, "_register", register)
    monkeypatch.setattr(worker.loop, "settle", settle)
    monkeypatch.setattr(reconciler, "RECONCILE_S", 0.01)
    monkeypatch.setattr(DirectControl, "close", lambda _self: None)
    worker.loop.run(stop)
    assert len(tries) == 3
