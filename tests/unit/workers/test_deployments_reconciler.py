"""What an engine worker holds is exactly what approved, unexpired releases name, byte for byte."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.utils import timezone

from governance.audit.models import AuditEvent
from registry import store
from registry.catalogue import TASKS
from registry.releases.models import Release
from tests.unit.workers import company, echo
from tests.unit.workers.releases import adapter, release
from workers.deployments import reconciler
from workers.deployments.models import Deployment, DeploymentState, Replica, ReplicaState
from workers.deployments.reconciler import Reconciler
from workers.deployments.services import deployment_create, deployment_stop
from workers.tasks.hosting import EngineHost
from workers.wire import deployment_queue

pytestmark = pytest.mark.django_db


class Worker:
    """An engine worker without a broker: its host, its loop, and the queues that it reads."""

    def __init__(self) -> None:
        self.host = EngineHost()
        self.queues: set[str] = set()
        self.loop = Reconciler(
            self.host, worker="e1", consume=self.queues.add, cease=self.queues.discard
        )


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    task = TASKS["text-generation"]
    engine = "tests.unit.workers.echo:EchoEngine"
    monkeypatch.setitem(TASKS, task.name, dataclasses.replace(task, engine=engine))
    worker = Worker()
    yield worker
    worker.host.close()
    assert echo.OPEN == []


def deployed(content: bytes = b"adapter", name: str = "docs") -> Deployment:
    approved = release(adapter(content), name=name)
    return deployment_create(actor=company.developer(), release_id=approved.pk)


def state_of(deployment: Deployment) -> tuple[str, str]:
    deployment.refresh_from_db()
    return deployment.state, Replica.objects.get(deployment=deployment).state


def test_a_deployment_is_loaded_from_the_bytes_that_its_release_names(worker: Worker) -> None:
    deployment = deployed()
    worker.loop.reconcile()
    assert state_of(deployment) == ("serving", "ready")
    assert worker.host.loaded() == {deployment.pk: deployment.release.version.digest}
    assert worker.queues == {deployment_queue(deployment.pk)}
    assert echo.OPEN[0].adapters == {str(deployment.pk): b"adapter"}


def test_two_adapters_stand_on_one_engine(worker: Worker) -> None:
    deployed(b"one", "first")
    deployed(b"two", "second")
    worker.loop.reconcile()
    assert len(echo.OPEN) == 1
    assert len(worker.host.loaded()) == 2


@pytest.mark.parametrize("tampered", ["adapter", "base"])
def test_one_changed_byte_is_refused_at_load_and_audited(worker: Worker, tampered: str) -> None:
    deployment = deployed(b"adapter to be changed in " + tampered.encode())
    version = deployment.release.version
    bad = version if tampered == "adapter" else version.base
    assert bad is not None
    file = store.version_folder(bad.digest) / "weights.bin"
    honest = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(honest[:-1] + b"!")
    try:
        worker.loop.reconcile()
    finally:
        file.write_bytes(honest)
    assert state_of(deployment) == ("refused", "refused")
    assert "weights.bin has SHA-256" in deployment.message
    assert (worker.host.loaded(), worker.queues) == ({}, set())
    event = AuditEvent.objects.get(action="deployment:load", subject_id=str(deployment.pk))
    assert (event.outcome, event.actor_name) == ("denied", "engine-worker")
    assert "weights.bin" in event.reason


def test_a_manifest_that_was_rewritten_in_the_database_is_refused(worker: Worker) -> None:
    deployment = deployed()
    version = deployment.release.version
    version.manifest["files"][0]["sha256"] = "0" * 64
    version.save()
    worker.loop.reconcile()
    deployment.refresh_from_db()
    assert deployment.state == DeploymentState.REFUSED
    assert "does not have the digest" in deployment.message
    assert AuditEvent.objects.filter(action="deployment:load", outcome="denied").exists()


def test_weights_that_no_engine_can_load_refuse_their_deployment_alone(worker: Worker) -> None:
    model = company.model("odd", "text-generation")
    odd = company.version(model, files={"broken": b"", "weights.bin": b"odd"})
    broken = deployment_create(actor=company.developer(), release_id=release(odd, name="odd").pk)
    fine = deployed()
    worker.loop.reconcile()
    assert state_of(broken) == ("refused", "refused")
    assert "ValueError: the weights make no sense" in broken.message
    assert state_of(fine) == ("serving", "ready")


def test_what_is_stopped_is_unloaded_and_its_queue_left(worker: Worker) -> None:
    deployment = deployed()
    worker.loop.reconcile()
    lead = company.person("lea", "lead", "clinical")
    deployment_stop(actor=lead, deployment_id=deployment.pk)
    worker.loop.reconcile()
    assert state_of(deployment) == ("stopped", "stopped")
    assert (worker.host.loaded(), worker.queues) == ({}, set())


def test_another_release_of_the_same_bytes_takes_the_engine_over(worker: Worker) -> None:
    old = deployed()
    worker.loop.reconcile()
    (engine,) = echo.OPEN
    again = release(old.release.version)
    new = deployment_create(actor=company.developer(), release_id=again.pk)
    worker.loop.reconcile()
    assert state_of(new) == ("serving", "ready")
    assert state_of(old) == ("stopped", "stopped")
    assert worker.host.loaded() == {new.pk: again.version.digest}
    assert worker.queues == {deployment_queue(new.pk)}
    # Never closed and loaded again in between.
    assert [engine] == echo.OPEN
    assert engine.adapters == {str(new.pk): b"adapter"}


def test_what_is_taken_over_is_let_go_of_though_its_follower_cannot_load(worker: Worker) -> None:
    old = deployed(b"adapter that is lost")
    worker.loop.reconcile()
    file = store.version_folder(old.release.version.digest) / "weights.bin"
    honest = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(honest[:-1] + b"!")
    again = release(old.release.version)
    new = deployment_create(actor=company.developer(), release_id=again.pk)
    try:
        worker.loop.reconcile()
    finally:
        file.write_bytes(honest)
    assert state_of(new) == ("refused", "refused")
    assert (worker.host.loaded(), worker.queues) == ({}, set())


def test_in_its_grace_a_release_goes_on_serving_and_no_longer(worker: Worker) -> None:
    deployment = deployed()
    approved = release(deployment.release.version, name="graced", hours=-24, grace_days=2)
    graced = Deployment.objects.create(
        name="graced",
        release=approved,
        department=approved.department,
        created_by=approved.submitted_by,
    )
    worker.loop.reconcile()
    assert graced.pk in worker.host.loaded()
    loaded = worker.host.find(graced.pk)
    assert loaded is not None
    assert approved.serves_until is not None
    assert loaded.plan.expires_at == approved.serves_until.timestamp()
    past = timezone.now() - timedelta(days=2)
    Release.objects.filter(pk=approved.pk).update(expires_at=past)
    worker.loop.reconcile()
    assert graced.pk not in worker.host.loaded()


def test_what_has_expired_is_unloaded_before_anyone_stops_it(worker: Worker) -> None:
    deployment = deployed()
    worker.loop.reconcile()
    past = timezone.now() - timedelta(seconds=1)
    Release.objects.filter(pk=deployment.release_id).update(expires_at=past)
    worker.loop.reconcile()
    assert worker.host.loaded() == {}


def test_a_copy_that_was_taken_for_dead_is_reported_again(worker: Worker) -> None:
    deployment = deployed()
    worker.loop.reconcile()
    Replica.objects.update(state=ReplicaState.STOPPED)
    Deployment.objects.update(state=DeploymentState.PENDING)
    worker.loop.reconcile()
    assert state_of(deployment) == ("serving", "ready")
    assert len(echo.OPEN) == 1


def test_a_deployment_that_was_set_to_wait_as_its_copy_got_ready_serves_again(
    worker: Worker,
) -> None:
    deployment = deployed()
    worker.loop.reconcile()
    # Its last other copy died in the moment in which this one was reported.
    Deployment.objects.update(state=DeploymentState.PENDING)
    worker.loop.reconcile()
    assert state_of(deployment) == ("serving", "ready")


def test_a_queue_that_cannot_be_read_is_tried_again_in_the_next_round() -> None:
    deployment = deployed()

    def refuse(queue: str) -> None:
        raise ConnectionError(queue)

    host = RefusingHost()
    loop = Reconciler(host, worker="e1", consume=refuse, cease=lambda queue: None)
    with pytest.raises(ConnectionError):
        loop.reconcile()
    assert host.held == {}
    assert state_of(deployment)[0] == "pending"


class RefusingHost:
    """Loads nothing, and says that it did."""

    def __init__(self) -> None:
        self.held: dict[int, str] = {}

    def loaded(self) -> dict[int, str]:
        return self.held

    def load(self, plan: object) -> str:
        self.held[plan.deployment_id] = plan.digest  # type: ignore[attr-defined]
        return plan.digest  # type: ignore[attr-defined,no-any-return]

    def unload(self, deployment_id: int) -> None:
        self.held.pop(deployment_id)


class FullHost(RefusingHost):
    """Has no room left."""

    def __init__(self) -> None:
        super().__init__()
        self.tries = 0

    def load(self, plan: object) -> str:
        self.tries += 1
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_worker_without_room_does_not_take_away_what_another_serves(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = deployed()
    worker.loop.reconcile()
    host = FullHost()
    full = Reconciler(host, worker="e2", consume=lambda _: None, cease=lambda _: None)
    full.reconcile()
    full.reconcile()
    assert host.tries == 1
    deployment.refresh_from_db()
    assert deployment.state == DeploymentState.SERVING
    second = Replica.objects.get(deployment=deployment, worker="e2")
    assert (second.state, "No space left" in second.message) == ("stopped", True)

    monkeypatch.setattr(reconciler, "RELOAD_S", 0.0)
    again = Reconciler(host, worker="e2", consume=lambda _: None, cease=lambda _: None)
    again.reconcile()
    Replica.objects.filter(worker="e1").update(state=ReplicaState.STOPPED)
    again.reconcile()
    assert host.tries == 3
    deployment.refresh_from_db()
    assert deployment.state == DeploymentState.REFUSED
