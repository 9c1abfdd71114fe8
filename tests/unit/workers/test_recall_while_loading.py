"""A recall at each step of a load: the copy never becomes ready, and no queue is read."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from registry.catalog import TASKS, task_catalog
from registry.versions.models import ModelVersion
from registry.versions.recall import recall_radius, version_recall
from tests.fleets import assign_everything
from tests.unit.workers import company, echo
from tests.unit.workers.releases import adapter, release
from tests.unit.workers.test_equivalence import NEW, measured
from tests.unit.workers.test_prompt_versions import registered, requested
from workers.celery_tasks.hosting import EngineHost
from workers.control.direct import DirectControl
from workers.control.protocol import ReplicaReport, Software
from workers.deployments.models import Deployment, Replica
from workers.deployments.reconciler import Reconciler
from workers.deployments.services import deployment_create
from workers.deployments.worker_keys import worker_key_register
from workers.placement.capacity import Capacity

pytestmark = pytest.mark.django_db
NOTHING: Callable[[], None] = lambda: None  # noqa: E731


class Interrupted(echo.EchoEngine):
    """Echoes; `HOOKS` run at the steps of a load."""

    HOOKS: ClassVar[dict[str, Callable[[], None]]] = {}

    def __init__(self, folder: Path, **settings: Any) -> None:
        Interrupted.HOOKS.get("start", NOTHING)()
        super().__init__(folder, **settings)

    def add_adapter(self, name: str, folder: Path) -> None:
        super().add_adapter(name, folder)
        Interrupted.HOOKS.get("adapter", NOTHING)()

    def submit(self, request: Any, sink: Any) -> None:
        Interrupted.HOOKS.get("compare", NOTHING)()
        super().submit(request, sink)


class Control(DirectControl):
    """The control plane; the same hooks run while files are copied, and before a copy is recorded
    as ready."""

    def copy_version(self, deployment_id: int, manifest: Any, target: Path) -> None:
        super().copy_version(deployment_id, manifest, target)
        names = {file.path for file in manifest.files}
        Interrupted.HOOKS.get("prompt" if "prompt.json" in names else "copy", NOTHING)()

    def replica_report(self, *, worker: str, report: ReplicaReport) -> str:
        if report.state == "ready":
            Interrupted.HOOKS.get("report", NOTHING)()
        return super().replica_report(worker=worker, report=report)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Reconciler, EngineHost, set[str]]]:
    task = TASKS["text-generation"]
    engine = "tests.unit.workers.test_recall_while_loading:Interrupted"
    monkeypatch.setitem(task_catalog().tasks, task.name, dataclasses.replace(task, engine=engine))
    monkeypatch.setattr(Interrupted, "HOOKS", {})
    control, queues = Control(), set[str]()

    host = EngineHost(control)
    yield (
        Reconciler(host, control, worker="e1", consume=queues.add, cease=queues.discard),
        host,
        queues,
    )
    host.close()
    assert echo.OPEN == []


def recalled(version: ModelVersion) -> None:
    ada = company.person("ada", "admin")
    confirm = recall_radius(actor=ada, version_id=version.pk).digest
    version_recall(actor=ada, version_id=version.pk, reason="Unsafe.", confirm=confirm)


@pytest.mark.parametrize("below", [True, False], ids=["its base", "itself"])
@pytest.mark.parametrize("step", ["copy", "start", "adapter", "prompt", "compare", "report"])
def test_what_is_recalled_while_it_loads_never_serves(
    loop: tuple[Reconciler, EngineHost, set[str]], step: str, below: bool
) -> None:
    reconciler, host, queues = loop
    version = registered(requested(base_version=adapter())) if step == "prompt" else adapter()
    if step == "compare":
        measured(version, {"hello world": "helloworld"})
    deployment = deployment_create(actor=company.developer(), release_id=release(version).pk)
    worker_key_register(
        worker="e1", public_key="ab" * 32, engines=["own"], capacity=Capacity(10**9),
        software=Software({"own": NEW}),
    )  # fmt: skip
    assign_everything("e1")
    reached: list[str] = []

    def recall() -> None:
        if not reached:
            reached.append(step)
            assert version.base is not None
            recalled(version.base if below else version)

    Interrupted.HOOKS[step] = recall
    reconciler.settle()
    reconciler.load_missing(threading.Event())
    assert reached == [step]
    # Before the next round as well.
    assert (host.loaded(), queues) == ({}, set())
    assert not Replica.objects.filter(state="ready").exists()
    reconciler.settle()
    assert (host.loaded(), queues) == ({}, set())
    assert Deployment.objects.get(pk=deployment.pk).state != "serving"
