"""Brings an engine worker to the desired state: exactly the live deployments whose release may
serve, loaded from verified bytes. Runs in the engine worker; knows no engine, only a `Host`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from django.db import close_old_connections, connections

from governance.errors import DomainError, InvalidInput, WrongState
from registry.catalogue import get_task
from registry.manifests import Manifest, ManifestMismatch
from registry.releases.breakglass.force import serving_end
from registry.releases.services import release_servable
from registry.versions.models import ModelVersion, VersionKind
from workers.deployments.models import Deployment, DeploymentState, Replica, ReplicaState
from workers.deployments.selectors import live_deployments
from workers.deployments.services import replica_report, replicas_heartbeat, replicas_stop
from workers.wire import deployment_queue

logger = logging.getLogger(__name__)
RECONCILE_S = 2.0
HEARTBEAT_S = 3.0
# When a worker tries again what another one could load and it could not.
RELOAD_S = 60.0


@dataclass(frozen=True, slots=True)
class Weights:
    """The files of one version, by manifest."""

    name: str
    digest: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What a host needs in order to load one deployment; nothing of Django in it.

    `engine` is a dotted name. `adapter` stands on `weights`; without one the weights serve as they
    are. `digest` is the one that the approved release names; `expires_at` is when it stops serving,
    in seconds since the epoch.
    """

    deployment_id: int
    name: str
    task: str
    engine: str
    digest: str
    expires_at: float
    weights: Weights
    adapter: Weights | None = None


class Host(Protocol):
    """Holds engines. `load` blocks until the deployment can answer."""

    def loaded(self) -> dict[int, str]:
        """Deployment ids, each with the digest that was hashed while loading."""

    def load(self, plan: LoadPlan) -> str:
        """Copy with verification, load, and return the digest of what was loaded.

        Raises:
            DomainError: the bytes differ from the manifest; the message names the file.
        """

    def unload(self, deployment_id: int) -> None:
        """Let go of it; requests that still run on it fail."""


def load_plan(deployment: Deployment) -> LoadPlan:
    """What is to be loaded for a deployment, and from which bytes.

    Raises:
        WrongState: its release may not serve.
        ManifestMismatch: the recorded manifest is not the one of the digest.
        InvalidInput: its version is of a kind that no engine loads.
    """
    release = deployment.release
    release_servable(release)
    version = release.version
    weights, adapter = _weights(version), None
    if version.kind == VersionKind.ADAPTER and version.base is not None:
        weights, adapter = _weights(version.base), weights
        if adapter.manifest.base_digest != weights.digest:
            raise ManifestMismatch(
                f"{version} was made on another base than {version.base}.", path=""
            )
    elif version.kind not in {VersionKind.BASE, VersionKind.FULL}:
        raise InvalidInput(f"{version} is of kind {version.kind}, which no engine loads.")
    end = serving_end(release)
    if end is None:
        raise WrongState(f"Release {release.pk} has no end; it may not serve.")
    task = get_task(version.model.task)
    return LoadPlan(
        deployment_id=deployment.pk,
        name=deployment.name,
        task=task.name,
        engine=task.engine,
        digest=version.digest,
        expires_at=end.timestamp(),
        weights=weights,
        adapter=adapter,
    )


def _weights(version: ModelVersion) -> Weights:
    manifest = Manifest.from_json(version.manifest)
    if manifest.digest != version.digest:
        raise ManifestMismatch(
            f"The manifest of {version} does not have the digest {version.digest}.", path=""
        )
    return Weights(name=str(version), digest=version.digest, manifest=manifest)


class Reconciler:
    """One engine worker's loop.

    Args:
        worker: The worker's name, unique in the cluster and kept over a restart.
        consume: Start reading a queue; raises when the broker does not confirm.
        cease: Stop reading a queue.
    """

    def __init__(
        self,
        host: Host,
        *,
        worker: str,
        consume: Callable[[str], None],
        cease: Callable[[str], None],
    ) -> None:
        self._host = host
        self._worker = worker
        self._consume = consume
        self._cease = cease
        self._woken = threading.Event()
        self._load_after: dict[int, float] = {}

    def wake(self, _message: str = "") -> None:
        """Reconcile now."""
        self._woken.set()

    def run(self, stop: threading.Event) -> None:
        """Reconcile every 2 s, and when woken, until `stop`."""
        replicas_stop(worker=self._worker)
        while not stop.is_set():
            close_old_connections()
            try:
                self.reconcile(stop)
            except Exception:
                logger.exception("Reconciling failed; the next round tries again")
            self._woken.wait(RECONCILE_S)
            self._woken.clear()
        for deployment_id in self._host.loaded():
            self._host.unload(deployment_id)
        replicas_stop(worker=self._worker)
        connections.close_all()

    def beat(self, stop: threading.Event) -> None:
        """Say every 3 s, also while something loads, that this worker's copies are alive."""
        while not stop.wait(HEARTBEAT_S):
            close_old_connections()
            try:
                replicas_heartbeat(worker=self._worker)
            except Exception:
                logger.exception("No heartbeat was sent")
        connections.close_all()

    def reconcile(self, stop: threading.Event | None = None) -> None:
        """One round: unload what may not serve, then load what is missing, one after another.

        What another deployment of the same bytes takes the place of takes nothing in any more, and
        is let go of after that has loaded: its engine is there, so that the change is soon over.
        """
        desired = {deployment.pk: deployment for deployment in live_deployments()}
        plans: dict[int, LoadPlan] = {}
        for deployment in desired.values():
            try:
                plans[deployment.pk] = load_plan(deployment)
            except WrongState as error:
                # The controller stops it and says why; here it only must not be held.
                logger.info("Deployment %s is not to be served: %s", deployment.name, error)
            except DomainError as error:
                self._refuse(deployment.pk, error.message)
        loaded = self._host.loaded()
        leaving = {
            deployment_id: digest
            for deployment_id, digest in loaded.items()
            if (plan := plans.get(deployment_id)) is None or plan.digest != digest
        }
        coming = {plan.digest for plan in plans.values() if plan.deployment_id not in loaded}
        followed = [pk for pk, digest in leaving.items() if digest in coming]
        for deployment_id in leaving:
            if deployment_id in followed:
                self._cease(deployment_queue(deployment_id))
            else:
                self._unload(deployment_id)
        try:
            self._load_missing(plans, loaded, stop)
        finally:
            for deployment_id in followed:
                self._unload(deployment_id)

    def _load_missing(
        self, plans: dict[int, LoadPlan], loaded: dict[int, str], stop: threading.Event | None
    ) -> None:
        # Those of bytes that are here first: they are quickest.
        here = set(loaded.values())
        for plan in sorted(plans.values(), key=lambda p: (p.digest not in here, p.deployment_id)):
            if stop is not None and stop.is_set():
                return
            if plan.deployment_id in loaded:
                self._confirm(plan)
            elif time.monotonic() >= self._load_after.get(plan.deployment_id, 0.0):
                self._load(plan)

    def _load(self, plan: LoadPlan) -> None:
        started = time.monotonic()
        replica_report(
            deployment_id=plan.deployment_id, worker=self._worker, state=ReplicaState.LOADING
        )
        logger.info("Loading deployment %s (%s)", plan.name, plan.digest[:12])
        try:
            digest = self._host.load(plan)
        except DomainError as error:
            self._refuse(plan.deployment_id, f"{plan.name} was not loaded: {error.message}")
            return
        except Exception as error:
            logger.exception("Deployment %s could not be loaded", plan.name)
            reason = f"{plan.name} could not be loaded: {type(error).__name__}: {error}"
            self._give_up(plan, reason)
            return
        self._ready(plan, digest, time.monotonic() - started)

    def _give_up(self, plan: LoadPlan, reason: str) -> None:
        """Where another worker has it ready, the bytes are good and this one lacks something: room,
        memory, a device. It stands by, and what the other one serves goes on.
        """
        ready = Replica.objects.filter(deployment_id=plan.deployment_id, state=ReplicaState.READY)
        if not ready.exclude(worker=self._worker).exists():
            self._refuse(plan.deployment_id, reason)
            return
        self._load_after[plan.deployment_id] = time.monotonic() + RELOAD_S
        replica_report(
            deployment_id=plan.deployment_id,
            worker=self._worker,
            state=ReplicaState.STOPPED,
            message=reason[:1000],
        )

    def _ready(self, plan: LoadPlan, digest: str, seconds: float | None) -> None:
        try:
            self._consume(deployment_queue(plan.deployment_id))
            replica = replica_report(
                deployment_id=plan.deployment_id,
                worker=self._worker,
                state=ReplicaState.READY,
                loaded_digest=digest,
                load_seconds=seconds,
            )
        except Exception:
            # Stopped meanwhile, or broker or database away: hold nothing that is not on record.
            self._unload(plan.deployment_id)
            raise
        if replica.state != ReplicaState.READY:
            self._unload(plan.deployment_id)

    def _confirm(self, plan: LoadPlan) -> None:
        """A copy that was taken for dead, by a silence that has ended, is reported again; and one
        whose deployment waits nevertheless.
        """
        known = Replica.objects.filter(
            deployment_id=plan.deployment_id,
            worker=self._worker,
            state=ReplicaState.READY,
            deployment__state=DeploymentState.SERVING,
        )
        if not known.exists():
            self._ready(plan, self._host.loaded()[plan.deployment_id], None)

    def _unload(self, deployment_id: int) -> None:
        logger.info("Unloading deployment %s", deployment_id)
        self._cease(deployment_queue(deployment_id))
        self._host.unload(deployment_id)
        replica_report(deployment_id=deployment_id, worker=self._worker, state=ReplicaState.STOPPED)

    def _refuse(self, deployment_id: int, reason: str) -> None:
        logger.error("Deployment %s is refused: %s", deployment_id, reason)
        replica_report(
            deployment_id=deployment_id,
            worker=self._worker,
            state=ReplicaState.REFUSED,
            message=reason[:1000],
        )
