"""Nothing is deployed that its release does not cover, and nothing stays deployed either."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from governance.audit.models import AuditEvent
from governance.audit.services import audit_refusal
from governance.errors import NotFound, NotPermitted, WrongState
from registry.releases.models import Release
from tests.unit.audit_support import recorded
from tests.unit.workers import company
from tests.unit.workers.releases import adapter, release
from workers.deployments.models import Deployment, DeploymentState, Replica, ReplicaState, WorkerKey
from workers.deployments.preview import deployment_preview
from workers.deployments.selectors import deployment_get, deployments_visible_to
from workers.deployments.services import (
    ENGINE_WORKER,
    deployment_create,
    deployment_stop,
    deployments_stop_unservable,
    replica_report,
    replicas_expire,
    replicas_heartbeat,
)
from workers.deployments.states import ALLOWED_TRANSITIONS, deployment_move
from workers.deployments.worker_keys import worker_key_register, worker_keys_expire
from workers.placement.models import Placement

pytestmark = [pytest.mark.django_db, pytest.mark.sweep]


def deployed(of: Release | None = None) -> Deployment:
    of = of or release(adapter())
    return deployment_create(actor=company.developer(), release_id=of.pk)


def ready(deployment: Deployment, worker: str = "e1") -> Replica:
    return replica_report(
        deployment_id=deployment.pk,
        worker=worker,
        state=ReplicaState.READY,
        loaded_digest=deployment.release.version.digest,
    )


def test_an_allowed_transition_is_saved() -> None:
    deployment = deployed()
    for before, following in ALLOWED_TRANSITIONS.items():
        for after in following:
            Deployment.objects.filter(pk=deployment.pk).update(state=before)
            moved = deployment_move(deployment_id=deployment.pk, to=after, actor=ENGINE_WORKER)
            assert moved.state == after


def test_a_refused_transition_changes_nothing() -> None:
    deployment = deployed()
    Deployment.objects.filter(pk=deployment.pk).update(state="stopped")
    with pytest.raises(WrongState, match="is stopped; it cannot become serving"):
        deployment_move(
            deployment_id=deployment.pk, to=DeploymentState.SERVING, actor=ENGINE_WORKER
        )
    assert Deployment.objects.get(pk=deployment.pk).state == "stopped"


def test_an_approved_release_is_deployed_and_serves_once_a_replica_is_ready() -> None:
    deployment = deployed()
    assert (deployment.state, deployment.name) == (DeploymentState.PENDING, "docs")
    ready(deployment)
    deployment.refresh_from_db()
    assert deployment.state == DeploymentState.SERVING
    assert AuditEvent.objects.filter(action="deployment:serve").count() == 1


@pytest.mark.parametrize("state", ["in_review", "rejected", "withdrawn", "expired", "recalled"])
def test_an_unapproved_release_is_refused_and_the_attempt_is_on_record(state: str) -> None:
    refused = release(adapter(), state=state)
    with pytest.raises(WrongState) as error:
        deployed(refused)
    audit_refusal(error.value)
    event = recorded(action="deployment:create", outcome="denied")
    assert (event.subject_type, event.subject_id) == ("release", str(refused.pk))
    assert event.actor_name == "dev-clinical"
    assert not Deployment.objects.exists()


def test_a_release_that_ended_a_moment_ago_is_refused() -> None:
    with pytest.raises(WrongState):
        deployed(release(adapter(), hours=-0.001))


def test_a_newer_release_of_the_same_name_replaces_the_one_that_serves() -> None:
    old = deployed()
    ready(old)
    new = deployed(release(adapter(b"better")))
    old.refresh_from_db()
    assert (old.state, new.state) == (DeploymentState.STOPPED, DeploymentState.PENDING)
    assert old.message == f"Replaced by release {new.release_id}."
    with pytest.raises(WrongState, match="is deployed as docs already"):
        deployed(new.release)


def test_a_name_that_serves_for_another_department_is_not_taken_over() -> None:
    deployed()
    theirs = release(adapter(where="finance"))
    actor = company.developer("finance")
    with pytest.raises(WrongState, match="serves for another department"):
        deployment_create(actor=actor, release_id=theirs.pk)
    preview = deployment_preview(actor=actor, release_id=theirs.pk)
    assert preview.obstacle.startswith("The name docs serves for another department")


def test_who_may_not_see_a_release_or_deployment_does_not_learn_of_it() -> None:
    deployment = deployed()
    stranger = company.developer("finance")
    with pytest.raises(NotFound):
        deployment_create(actor=stranger, release_id=deployment.release_id)
    with pytest.raises(NotFound):
        deployment_get(actor=stranger, deployment_id=deployment.pk)
    with pytest.raises(NotFound):
        deployment_stop(actor=stranger, deployment_id=deployment.pk)
    assert not deployments_visible_to(stranger).exists()
    viewer = company.person("vera", "viewer", "clinical")
    with pytest.raises(NotPermitted):
        deployment_stop(actor=viewer, deployment_id=deployment.pk)


def test_a_lead_stops_a_deployment_and_a_copy_that_comes_late_is_turned_away() -> None:
    deployment = deployed()
    lead = company.person("lea", "lead", "clinical")
    stopped = deployment_stop(actor=lead, deployment_id=deployment.pk, reason="Wrong answers.")
    assert (stopped.state, stopped.message) == (DeploymentState.STOPPED, "Wrong answers.")
    assert stopped.stopped_at is not None
    with pytest.raises(WrongState, match="is stopped; it must not be served"):
        ready(deployment)
    with pytest.raises(WrongState, match="is stopped; it cannot become stopped"):
        deployment_stop(actor=lead, deployment_id=deployment.pk)


def test_a_replica_of_other_bytes_refuses_the_deployment() -> None:
    deployment = deployed()
    replica = replica_report(
        deployment_id=deployment.pk,
        worker="e1",
        state=ReplicaState.READY,
        loaded_digest="0" * 64,
    )
    deployment.refresh_from_db()
    assert (replica.state, deployment.state) == (ReplicaState.REFUSED, DeploymentState.REFUSED)
    event = AuditEvent.objects.get(action="deployment:load")
    assert (event.outcome, event.actor_name) == ("denied", "engine-worker")


def test_a_silent_replica_is_stopped_and_its_deployment_is_pending_again() -> None:
    deployment = deployed()
    ready(deployment)
    ready(deployment, "e2")
    silent = timezone.now() - timedelta(seconds=16)
    Replica.objects.update(heartbeat_at=silent)
    worker_key_register(worker="e2", public_key="ab" * 32)
    Placement.objects.create(deployment=deployment, worker="e2", since=silent)
    assert replicas_heartbeat(worker="e2", engines=()) == 1
    assert replicas_expire() == 1
    deployment.refresh_from_db()
    assert deployment.state == DeploymentState.SERVING
    Replica.objects.update(heartbeat_at=silent)
    assert replicas_expire() == 1
    deployment.refresh_from_db()
    assert deployment.state == DeploymentState.PENDING
    ready(deployment)
    deployment.refresh_from_db()
    assert deployment.state == DeploymentState.SERVING


def test_a_copy_that_is_placed_there_no_more_ends_although_its_worker_is_alive() -> None:
    moved, failed = deployed(), deployed(release(adapter(), name="other"))
    silent = timezone.now() - timedelta(seconds=16)
    worker_key_register(worker="e1", public_key="ab" * 32)
    for deployment, state in ((moved, ReplicaState.READY), (failed, ReplicaState.FAILED)):
        Replica.objects.create(
            deployment=deployment, worker="e1", state=state, failures=1, heartbeat_at=silent
        )
    assert replicas_heartbeat(worker="e1", engines=()) == 1
    assert replicas_expire() == 1
    states = dict(Replica.objects.values_list("deployment", "state"))
    assert states == {moved.pk: "stopped", failed.pk: "failed"}


def test_workers_that_were_silent_for_an_hour_are_forgotten() -> None:
    for worker in ("e1", "e2"):
        worker_key_register(worker=worker, public_key="ab" * 32)
    long_ago = timezone.now() - timedelta(minutes=61)
    WorkerKey.objects.filter(worker="e1").update(seen_at=long_ago, registered_at=long_ago)
    assert worker_keys_expire() == 1
    assert WorkerKey.objects.get().worker == "e2"


def test_a_worker_that_is_not_registered_is_told_so() -> None:
    with pytest.raises(NotFound):
        replicas_heartbeat(worker="e1", engines=())


def test_the_controller_stops_what_its_release_covers_no_more() -> None:
    ended, lasting = deployed(), deployed(release(adapter(), name="other"))
    past = timezone.now() - timedelta(seconds=1)
    Release.objects.filter(pk=ended.release_id).update(expires_at=past)
    assert deployments_stop_unservable() == 1
    ended.refresh_from_db()
    lasting.refresh_from_db()
    assert (ended.state, lasting.state) == (DeploymentState.STOPPED, DeploymentState.PENDING)
    assert "expired" in ended.message or "ended" in ended.message
