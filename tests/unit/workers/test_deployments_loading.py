"""A load of minutes delays no stop, and what was stopped meanwhile does not serve when it ends."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator

import pytest
from django.db import connection
from django.utils import timezone

from registry.catalog import TASKS, task_catalog
from registry.releases.models import Release
from tests.fleets import assign_everything
from tests.unit.workers import company, echo
from tests.unit.workers.releases import release
from tests.waiting import PATIENCE_S
from workers.celery_tasks.hosting import EngineHost
from workers.control.direct import DirectControl
from workers.deployments.models import Deployment, Replica
from workers.deployments.reconciler import Reconciler
from workers.deployments.services import deployment_create, deployment_stop
from workers.deployments.states import LIVE
from workers.wire import deployment_queue

pytestmark = pytest.mark.django_db(transaction=True)


class Loading:
    """A worker whose loader is in the middle of a load that ends when it is told to."""

    def __init__(self) -> None:
        self.host = EngineHost()
        self.queues: set[str] = set()
        self.loop = Reconciler(
            self.host,
            DirectControl(),
            worker="e1",
            consume=self.queues.add,
            cease=self.queues.discard,
        )
        self.stop = threading.Event()
        self._thread = threading.Thread(target=self._load)

    def settle(self) -> None:
        assign_everything("e1")
        self.loop.settle()

    def begin(self) -> None:
        self.settle()
        self._thread.start()
        while not Replica.objects.filter(state="loading").exists():
            assert self._thread.is_alive()

    def end(self) -> None:
        echo.MAY_LOAD.set()
        self._thread.join(PATIENCE_S)

    def _load(self) -> None:
        try:
            self.loop.load_missing(self.stop)
        finally:
            connection.close()


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loading]:
    task = TASKS["text-generation"]
    engine = "tests.unit.workers.echo:EchoEngine"
    monkeypatch.setitem(task_catalog().tasks, task.name, dataclasses.replace(task, engine=engine))
    echo.MAY_LOAD.clear()
    worker = Loading()
    yield worker
    worker.end()
    worker.host.close()
    assert echo.OPEN == []


def deployed(name: str, **files: bytes) -> Deployment:
    model = company.model(name, "text-generation")
    version = company.version(model, files={"weights.bin": name.encode(), **files})
    approved = release(version, name=name)
    return deployment_create(actor=company.developer(), release_id=approved.pk)


@pytest.mark.parametrize("how", ["stopped", "recalled"])
def test_what_is_stopped_or_recalled_is_unloaded_while_another_deployment_loads(
    loading: Loading, how: str
) -> None:
    quick = deployed("quick")
    loading.settle()
    loading.loop.load_missing(loading.stop)
    assert loading.queues == {deployment_queue(quick.pk)}
    slow = deployed("slow", slow=b"")
    loading.begin()
    if how == "stopped":
        deployment_stop(actor=company.person("lea", "lead", "clinical"), deployment_id=quick.pk)
    else:
        Release.objects.filter(pk=quick.release_id).update(state="recalled")
    loading.settle()
    assert (loading.host.loaded(), loading.queues) == ({}, set())
    assert Replica.objects.get(deployment=slow).state == "loading"
    loading.end()
    assert loading.host.loaded() == {slow.pk: slow.release.version.digest}
    assert Replica.objects.get(deployment=slow).state == "ready"


@pytest.mark.parametrize("how", ["stopped", "expired"])
def test_what_may_not_serve_when_its_load_ends_is_let_go_of(loading: Loading, how: str) -> None:
    slow = deployed("slow", slow=b"")
    loading.begin()
    if how == "stopped":
        deployment_stop(actor=company.person("lea", "lead", "clinical"), deployment_id=slow.pk)
    else:
        Release.objects.filter(pk=slow.release_id).update(expires_at=timezone.now())
    loading.settle()
    loading.end()
    assert (loading.host.loaded(), loading.queues) == ({}, set())
    assert Replica.objects.get(deployment=slow).state == "stopped"
    assert Deployment.objects.filter(pk=slow.pk, state__in=LIVE).exists() is (how == "expired")


def test_a_worker_that_stops_while_it_loads_serves_nothing(loading: Loading) -> None:
    deployed("slow", slow=b"")
    loading.begin()
    loading.stop.set()
    loading.end()
    assert (loading.host.loaded(), loading.queues) == ({}, set())
