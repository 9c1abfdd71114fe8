"""An engine worker holds exactly what approved, unexpired releases name, byte for byte."""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import OperationalError
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.errors import Unavailable
from registry.catalog import TASKS, task_catalog
from registry.releases.models import Release
from registry.versions.models import ModelVersion
from tests.fleets import assign_everything
from tests.stored import version_part
from tests.unit.workers import company, echo
from tests.unit.workers.releases import adapter, release
from workers.celery_tasks.hosting import EngineHost
from workers.control.direct import DirectControl
from workers.deployments import attempts, reconciler
from workers.deployments.alarms import copies_differ, loads_failing
from workers.deployments.models import Deployment, DeploymentState, Replica, ReplicaState
from workers.deployments.reconciler import Reconciler
from workers.deployments.services import (
    deployment_create,
    deployment_stop,
    replica_report,
    replicas_stop,
)
from workers.wire import deployment_queue

pytestmark = pytest.mark.django_db


class Worker:
    """An engine worker without a broker: its host, its loop, and the queues that it reads."""

    def __init__(self, name: str = "e1") -> None:
        self.host = EngineHost()
        self.queues: set[str] = set()
        self.loop = Reconciler(
            self.host,
            DirectControl(),
            worker=name,
            consume=self.queues.add,
            cease=self.queues.discard,
        )

    def reconcile(self) -> None:
        """One round of the thread that unloads and of the one that loads."""
        reconcile(self.loop)


def reconcile(loop: Reconciler) -> None:
    assign_everything(loop._worker)
    loop.settle()
    loop.load_missing(threading.Event())
    loop.settle()


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """No file can grow beyond 50,000 bytes, as on a full volume."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def unmounted(version: ModelVersion) -> Iterator[None]:
    """The version's file is not there, as when the data volume is not mounted."""
    file = version_part(version.digest, "weights.bin")
    aside = file.with_name(f"aside-{file.name[:8]}")
    file.rename(aside)
    try:
        yield
    finally:
        aside.rename(file)


@contextlib.contextmanager
def changed(version: ModelVersion) -> Iterator[None]:
    """One byte of the version's file differs from the manifest."""
    file = version_part(version.digest, "weights.bin")
    honest = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(honest[:-1] + b"!")
    try:
        yield
    finally:
        file.write_bytes(honest)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    task = TASKS["text-generation"]
    engine = "tests.unit.workers.echo:EchoEngine"
    monkeypatch.setitem(task_catalog().tasks, task.name, dataclasses.replace(task, engine=engine))
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
    worker.reconcile()
    assert state_of(deployment) == ("serving", "ready")
    assert worker.host.loaded() == {deployment.pk: deployment.release.version.digest}
    assert worker.queues == {deployment_queue(deployment.pk)}
    assert echo.OPEN[0].adapters == {str(deployment.pk): b"adapter"}


def test_two_adapters_stand_on_one_engine(worker: Worker) -> None:
    deployed(b"one", "first")
    deployed(b"two", "second")
    worker.reconcile()
    assert len(echo.OPEN) == 1
    assert len(worker.host.loaded()) == 2


@pytest.mark.parametrize("tampered", ["adapter", "base"])
def test_one_changed_byte_is_refused_at_load_and_audited(worker: Worker, tampered: str) -> None:
    deployment = deployed(b"adapter to be changed in " + tampered.encode())
    version = deployment.release.version
    bad = version if tampered == "adapter" else version.base
    assert bad is not None
    with changed(bad):
        worker.reconcile()
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
    worker.reconcile()
    deployment.refresh_from_db()
    assert deployment.state == DeploymentState.REFUSED
    assert "does not have the digest" in deployment.message
    assert AuditEvent.objects.filter(action="deployment:load", outcome="denied").exists()


def test_weights_that_no_engine_can_load_fail_alone_and_refuse_nothing(worker: Worker) -> None:
    model = company.model("odd", "text-generation")
    odd = company.version(model, files={"broken": b"", "weights.bin": b"odd"})
    broken = deployment_create(actor=company.developer(), release_id=release(odd, name="odd").pk)
    fine = deployed()
    worker.reconcile()
    assert state_of(broken) == ("pending", "failed")
    assert "ValueError: the weights make no sense" in Replica.objects.get(deployment=broken).message
    assert state_of(fine) == ("serving", "ready")


def test_what_is_stopped_is_unloaded_and_its_queue_left(worker: Worker) -> None:
    deployment = deployed()
    worker.reconcile()
    lead = company.person("lea", "lead", "clinical")
    deployment_stop(actor=lead, deployment_id=deployment.pk)
    worker.reconcile()
    assert state_of(deployment) == ("stopped", "stopped")
    assert (worker.host.loaded(), worker.queues) == ({}, set())


def test_another_release_of_the_same_bytes_takes_the_engine_over(worker: Worker) -> None:
    old = deployed()
    worker.reconcile()
    (engine,) = echo.OPEN
    again = release(old.release.version)
    new = deployment_create(actor=company.developer(), release_id=again.pk)
    worker.reconcile()
    assert state_of(new) == ("serving", "ready")
    assert state_of(old) == ("stopped", "stopped")
    assert worker.host.loaded() == {new.pk: again.version.digest}
    assert worker.queues == {deployment_queue(new.pk)}
    # Never closed and loaded again in between.
    assert [engine] == echo.OPEN
    assert engine.adapters == {str(new.pk): b"adapter"}


def test_what_is_taken_over_is_let_go_of_though_its_follower_cannot_load(worker: Worker) -> None:
    old = deployed(b"adapter that is lost")
    worker.reconcile()
    again = release(old.release.version)
    new = deployment_create(actor=company.developer(), release_id=again.pk)
    with changed(old.release.version):
        worker.reconcile()
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
    worker.reconcile()
    assert graced.pk in worker.host.loaded()
    loaded = worker.host.find(graced.pk)
    assert loaded is not None
    assert approved.serves_until is not None
    assert loaded.plan.expires_at == approved.serves_until.timestamp()
    past = timezone.now() - timedelta(days=2)
    Release.objects.filter(pk=approved.pk).update(expires_at=past)
    worker.reconcile()
    assert graced.pk not in worker.host.loaded()


def test_what_has_expired_is_unloaded_before_anyone_stops_it(worker: Worker) -> None:
    deployment = deployed()
    worker.reconcile()
    past = timezone.now() - timedelta(seconds=1)
    Release.objects.filter(pk=deployment.release_id).update(expires_at=past)
    worker.reconcile()
    assert worker.host.loaded() == {}


def test_a_copy_that_was_taken_for_dead_is_reported_again(worker: Worker) -> None:
    deployment = deployed()
    worker.reconcile()
    Replica.objects.update(state=ReplicaState.STOPPED)
    Deployment.objects.update(state=DeploymentState.PENDING)
    worker.reconcile()
    assert state_of(deployment) == ("serving", "ready")
    assert len(echo.OPEN) == 1


def test_a_deployment_that_was_set_to_wait_as_its_copy_got_ready_serves_again(
    worker: Worker,
) -> None:
    deployment = deployed()
    worker.reconcile()
    # Its last other copy died in the moment in which this one was reported.
    Deployment.objects.update(state=DeploymentState.PENDING)
    worker.reconcile()
    assert state_of(deployment) == ("serving", "ready")


class Away(DirectControl):
    """The control plane; the methods in `without` do not reach it."""

    def __init__(self) -> None:
        self.without: set[str] = set()

    def __getattribute__(self, name: str) -> Any:
        if name != "without" and name in self.without:
            raise OperationalError("The database is away.")
        return super().__getattribute__(name)


class CutOff(Worker):
    """A worker whose network to the control plane and to the broker may break."""

    def __init__(self) -> None:
        super().__init__()
        self.control, self.broker_away = Away(), False
        self.loop = Reconciler(
            self.host,
            self.control,
            worker="e1",
            consume=self.consume,
            cease=self.queues.discard,
            keep_s=3600.0,
        )

    def consume(self, queue: str) -> None:
        if self.broker_away:
            raise Unavailable("The broker is away.")
        self.queues.add(queue)

    def answers(self, deployment: Deployment) -> bool:
        return self.host.leased(deployment.pk) and bool(self.queues)


@pytest.fixture
def cut_off(worker: Worker) -> Iterator[CutOff]:
    cut_off = CutOff()
    yield cut_off
    cut_off.host.close()


def test_an_outage_unloads_nothing_and_ends_answering(
    cut_off: CutOff, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = deployed()
    cut_off.reconcile()
    (engine,) = echo.OPEN
    assert cut_off.answers(deployment)
    cut_off.control.without = {"desired"}
    monkeypatch.setattr(reconciler.time, "monotonic", later(settings.SERVING_LEASE_S))
    assert not cut_off.loop._round()
    assert not cut_off.answers(deployment)
    assert cut_off.queues == set()
    Replica.objects.update(state=ReplicaState.STOPPED)
    Deployment.objects.update(state=DeploymentState.PENDING)

    # The database is back first.
    cut_off.control.without, cut_off.broker_away = set(), True
    assert not cut_off.loop._round()
    assert not cut_off.answers(deployment)
    cut_off.broker_away = False
    assert cut_off.loop._round()
    assert cut_off.answers(deployment)
    assert state_of(deployment) == ("serving", "ready")
    assert [engine] == echo.OPEN


def test_what_was_stopped_during_an_outage_is_unloaded_and_answers_nothing(
    cut_off: CutOff,
) -> None:
    deployment = deployed()
    cut_off.reconcile()
    cut_off.control.without = {"desired", "replica_report"}
    assert not cut_off.loop._round()
    lead = company.person("lea", "lead", "clinical")
    deployment_stop(actor=lead, deployment_id=deployment.pk)
    cut_off.control.without = set()
    assert cut_off.loop._round()
    assert not cut_off.answers(deployment)
    assert (cut_off.host.loaded(), echo.OPEN) == ({}, [])


def test_after_a_long_time_without_the_control_plane_everything_is_unloaded(
    cut_off: CutOff, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = deployed()
    cut_off.reconcile()
    cut_off.control.without = {"desired"}
    monkeypatch.setattr(reconciler.time, "monotonic", later(3601.0))
    assert not cut_off.loop._round()
    assert (cut_off.host.loaded(), echo.OPEN) == ({}, [])
    cut_off.control.without = set()
    cut_off.reconcile()
    assert state_of(deployment) == ("serving", "ready")


def test_a_load_that_an_outage_interrupts_after_its_bytes_is_not_repeated(
    cut_off: CutOff,
) -> None:
    deployment = deployed()
    assign_everything("e1")
    cut_off.loop.settle()
    cut_off.control.without = {"references"}
    cut_off.loop.load_missing(threading.Event())
    (engine,) = echo.OPEN
    cut_off.loop.settle()
    assert not cut_off.answers(deployment)
    cut_off.control.without = set()
    cut_off.reconcile()
    assert cut_off.answers(deployment)
    assert state_of(deployment) == ("serving", "ready")
    assert [engine] == echo.OPEN


@pytest.mark.parametrize("trouble", ["room", "volume"])
def test_a_worker_without_room_or_volume_fails_and_tries_again(
    worker: Worker, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "RETRY_FIRST_S", 60.0)
    deployment = deployed(b"w" * 100_000)
    version = deployment.release.version
    with no_room() if trouble == "room" else unmounted(version):
        worker.reconcile()
        worker.reconcile()
    assert state_of(deployment) == ("pending", "failed")
    failed = Replica.objects.get(deployment=deployment)
    said = {"room": "File too large", "volume": "is missing from the artifact store"}[trouble]
    assert said in failed.message
    # Once, for all that it was reconciled twice: the next try waits.
    assert failed.failures == 1
    assert failed.retry_at is not None
    assert failed.retry_at > timezone.now()
    assert not AuditEvent.objects.filter(action="deployment:load").exists()

    monkeypatch.setattr(reconciler.time, "monotonic", later(attempts.RETRY_FIRST_S))
    worker.reconcile()
    assert state_of(deployment) == ("serving", "ready")
    ready = Replica.objects.get(deployment=deployment)
    assert (ready.failures, ready.retry_at, ready.message) == (0, None, "")


def test_what_has_lost_its_engine_is_loaded_again_after_a_wait_that_grows(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "RETRY_FIRST_S", 60.0)
    deployment = deployed()
    waited = 0.0
    for failures in (1, 2):
        worker.reconcile()
        assert state_of(deployment) == ("serving", "ready")
        (engine,) = echo.OPEN
        engine.fault = "The server ended with status 137."
        worker.reconcile()
        assert (worker.host.loaded(), worker.queues, echo.OPEN) == ({}, set(), [])
        replica = Replica.objects.get(deployment=deployment)
        assert (replica.state, replica.failures) == (ReplicaState.FAILED, failures)
        assert "its engine ended. The server ended with status 137." in replica.message
        waited += attempts.RETRY_FIRST_S * failures
        monkeypatch.setattr(reconciler.time, "monotonic", later(waited))
    worker.reconcile()
    assert state_of(deployment) == ("serving", "ready")


def test_a_temporary_folder_that_was_cleared_is_made_anew(worker: Worker) -> None:
    deployed(b"one", "first")
    worker.reconcile()
    assert worker.host._root is not None
    shutil.rmtree(worker.host._root)
    second = deployed(b"two", "second")
    worker.reconcile()
    assert state_of(second) == ("serving", "ready")


def later(seconds: float) -> Callable[[], float]:
    now = time.monotonic() + seconds
    return lambda: now


def test_each_failure_doubles_the_wait_up_to_five_minutes(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler.time, "monotonic", later(0))
    now = time.monotonic()
    waits = [worker.loop._attempts.failed(1).next_try - now for _ in range(9)]
    assert waits == pytest.approx([5, 10, 20, 40, 80, 160, 300, 300, 300])


@pytest.mark.parametrize("trouble", ["volume", "bytes"])
def test_a_sick_worker_takes_nothing_away_from_what_another_serves(
    worker: Worker, trouble: str
) -> None:
    deployment = deployed(b"adapter that a sick worker reads: " + trouble.encode())
    worker.reconcile()
    sick = Worker("e2")
    try:
        with (unmounted if trouble == "volume" else changed)(deployment.release.version):
            sick.reconcile()
    finally:
        sick.host.close()
    deployment.refresh_from_db()
    assert deployment.state == DeploymentState.SERVING
    second = Replica.objects.get(deployment=deployment, worker="e2")
    assert second.state == {"volume": "failed", "bytes": "refused"}[trouble]
    assert "weights.bin has SHA-256" in copies_differ() or trouble == "volume"
    assert Replica.objects.get(deployment=deployment, worker="e1").state == ReplicaState.READY


def test_a_restart_of_the_healthy_worker_does_not_let_the_sick_one_refuse(worker: Worker) -> None:
    deployment = deployed(b"adapter of a worker that restarts")
    worker.reconcile()
    replicas_stop(worker="e1")
    sick = Worker("e2")
    with changed(deployment.release.version):
        sick.reconcile()
    sick.host.close()
    deployment.refresh_from_db()
    assert deployment.state == DeploymentState.PENDING
    worker.reconcile()
    deployment.refresh_from_db()
    assert deployment.state == DeploymentState.SERVING


def test_where_no_worker_has_the_right_bytes_the_deployment_is_refused(worker: Worker) -> None:
    deployment = deployed(b"adapter that nobody has right")
    failing = Replica(deployment=deployment, worker="e2", state=ReplicaState.FAILED)
    failing.heartbeat_at = timezone.now()
    failing.save()
    with changed(deployment.release.version):
        worker.reconcile()
    deployment.refresh_from_db()
    assert deployment.state == DeploymentState.REFUSED
    assert copies_differ() == ""


def test_loads_that_fail_again_and_again_raise_an_alarm(worker: Worker) -> None:
    deployment = deployed()
    assign_everything("e1")
    for failures in (1, 2):
        fail(deployment, failures)
    assert loads_failing() == ""
    fail(deployment, 3)
    assert "e1 failed 3 times to load docs. No memory." in loads_failing()
    # Also while the next load runs.
    replica_report(deployment_id=deployment.pk, worker="e1", state=ReplicaState.LOADING)
    assert "failed 3 times" in loads_failing()
    worker.reconcile()
    assert loads_failing() == ""


def fail(deployment: Deployment, failures: int) -> None:
    replica_report(
        deployment_id=deployment.pk,
        worker="e1",
        state=ReplicaState.FAILED,
        message="No memory.",
        failures=failures,
        retry_in_s=5,
    )
