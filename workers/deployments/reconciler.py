"""Bring an engine worker to the desired state: exactly the live deployments whose release may
serve, loaded from verified bytes. Runs in the engine worker; knows no engine, only a `Host`.

One thread unloads and another one loads, so that a load of minutes delays no stop and no recall.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from django.db import DatabaseError, close_old_connections, connections

from governance.errors import DomainError, WrongState
from registry.manifests import ManifestMismatch
from workers.deployments.models import Deployment, DeploymentState, Replica, ReplicaState
from workers.deployments.plans import LoadPlan, load_plan
from workers.deployments.selectors import live_deployments
from workers.deployments.services import replica_report, replicas_heartbeat, replicas_stop
from workers.wire import deployment_queue

logger = logging.getLogger(__name__)
RECONCILE_S = 2.0
HEARTBEAT_S = 3.0
# A load that failed is tried again after this; each further failure doubles the wait.
RETRY_FIRST_S = 5.0
RETRY_LONGEST_S = 300.0


class Host(Protocol):
    """Holds engines. `load` blocks until the deployment can answer; `unload` may run meanwhile."""

    def loaded(self) -> dict[int, str]:
        """Deployment ids, each with the digest that was hashed while loading."""

    def load(self, plan: LoadPlan) -> str:
        """Copy with verification, load, and return the digest of what was loaded.

        Raises:
            ManifestMismatch: the bytes differ from the manifest; the message names the file.
            Exception: anything else is trouble of this worker, such as no memory or no volume.
        """

    def unload(self, deployment_id: int) -> None:
        """Let go of it; requests that still run on it fail."""


@dataclass(frozen=True, slots=True)
class Failures:
    """How often one deployment failed to load here in a row, and the (monotonic) next try."""

    count: int
    next_try: float


class Reconciler:
    """The loops of one engine worker.

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
        self._wanted = threading.Event()
        self._missing: list[LoadPlan] = []
        self._loading: int | None = None
        self._ceased: set[int] = set()
        self._failures: dict[int, Failures] = {}

    def wake(self, _message: str = "") -> None:
        """Reconcile now."""
        self._woken.set()

    def run(self, stop: threading.Event) -> None:
        """Settle every 2 s, and when woken, until `stop`; then unload everything."""
        replicas_stop(worker=self._worker)
        while not stop.is_set():
            close_old_connections()
            try:
                self.settle()
            except Exception:
                logger.exception("Reconciling failed; the next round tries again")
            self._woken.wait(RECONCILE_S)
            self._woken.clear()
        self._wanted.set()
        for deployment_id in self._host.loaded():
            self._host.unload(deployment_id)
        replicas_stop(worker=self._worker)
        connections.close_all()

    def run_loads(self, stop: threading.Event) -> None:
        """Load what is missing, one after another, until `stop`."""
        while not stop.is_set():
            close_old_connections()
            try:
                self.load_missing(stop)
            except Exception:
                logger.exception("Loading failed; the next round tries again")
            self._wanted.wait(RECONCILE_S)
            self._wanted.clear()
        connections.close_all()

    def beat(self, stop: threading.Event) -> None:
        """Say every 3 s that this worker is alive."""
        while not stop.wait(HEARTBEAT_S):
            close_old_connections()
            try:
                replicas_heartbeat(worker=self._worker)
            except Exception:
                logger.exception("No heartbeat was sent")
        connections.close_all()

    def settle(self) -> None:
        """Unload what may not serve, report again what serves, and note what is to be loaded.

        A deployment whose bytes another one is about to load gives up its queue at once, and is
        unloaded once that load has ended: its engine is there, so that the change is soon over.
        """
        deployments = list(live_deployments())
        plans = self._plans(deployments)
        loaded = self._host.loaded()
        missing = [plan for plan in plans.values() if plan.deployment_id not in loaded]
        here = set(loaded.values())
        # Bytes that are here already come first: they are the quickest.
        self._missing = sorted(missing, key=lambda p: (p.digest not in here, p.deployment_id))
        self._wanted.set()
        coming = {plan.digest for plan in missing if self._may_try(plan.deployment_id)}
        for deployment_id, digest in loaded.items():
            plan = plans.get(deployment_id)
            if deployment_id == self._loading:
                continue  # Its loader asks again whether it may serve.
            if plan is not None and plan.digest == digest:
                self._confirm(plan, digest)
            elif digest in coming:
                self._leave_queue(deployment_id)
            else:
                self._unload(deployment_id)
        for deployment_id in self._failures.keys() - {deployment.pk for deployment in deployments}:
            self._failures.pop(deployment_id, None)

    def load_missing(self, stop: threading.Event) -> None:
        """Load one after another what the newest `settle` found missing."""
        while not stop.is_set() and (plan := self._next()) is not None:
            self._loading = plan.deployment_id
            try:
                self._load(plan, stop)
            finally:
                self._missing = [each for each in self._missing if each is not plan]
                self._loading = None
                self._woken.set()

    def _next(self) -> LoadPlan | None:
        loaded = self._host.loaded()
        for plan in self._missing:
            if plan.deployment_id not in loaded and self._may_try(plan.deployment_id):
                return plan
        return None

    def _plans(self, deployments: Iterable[Deployment]) -> dict[int, LoadPlan]:
        plans: dict[int, LoadPlan] = {}
        for deployment in deployments:
            try:
                plans[deployment.pk] = load_plan(deployment)
            except WrongState as error:
                # The controller stops it and says why; here it only must not be held.
                logger.info("Deployment %s is not to be served: %s", deployment.name, error)
            except ManifestMismatch as error:
                self._refuse(deployment.pk, error.message)
            except DatabaseError:
                raise
            except Exception as error:
                # One row that cannot be read keeps no other deployment from its turn.
                self._fail(deployment.pk, deployment.name, _words(error))
        return plans

    def _may_try(self, deployment_id: int) -> bool:
        failures = self._failures.get(deployment_id)
        return failures is None or time.monotonic() >= failures.next_try

    def _load(self, plan: LoadPlan, stop: threading.Event) -> None:
        pk, started = plan.deployment_id, time.monotonic()
        replica_report(deployment_id=pk, worker=self._worker, state=ReplicaState.LOADING)
        logger.info("Loading deployment %s (%s)", plan.name, plan.digest[:12])
        try:
            digest = self._host.load(plan)
        except ManifestMismatch as error:
            self._refuse(pk, f"{plan.name} was not loaded: {error.message}")
            return
        except BaseException as error:
            # Libraries in Rust raise their panics past `Exception`; this thread must go on.
            logger.exception("Deployment %s could not be loaded", plan.name)
            self._fail(pk, plan.name, _words(error))
            return
        if stop.is_set():
            self._host.unload(pk)
            return
        try:
            # It took its time: what held when it began need not hold any more.
            _check_wanted(plan)
            self._ready(plan, digest, time.monotonic() - started)
        except WrongState as error:
            logger.info("Deployment %s is not to be served: %s", plan.name, error)
            self._unload(pk)
        except Exception as error:
            logger.exception("Deployment %s is loaded, but cannot be served", plan.name)
            self._unload(pk)
            self._fail(pk, plan.name, _words(error))

    def _ready(self, plan: LoadPlan, digest: str, seconds: float | None) -> None:
        self._consume(deployment_queue(plan.deployment_id))
        replica = replica_report(
            deployment_id=plan.deployment_id,
            worker=self._worker,
            state=ReplicaState.READY,
            loaded_digest=digest,
            load_seconds=seconds,
        )
        if replica.state != ReplicaState.READY:
            self._release(plan.deployment_id)
            self._count_failure(plan.deployment_id)
            return
        self._failures.pop(plan.deployment_id, None)

    def _confirm(self, plan: LoadPlan, digest: str) -> None:
        """A copy that was taken for dead, by a silence that has ended, is reported again; and one
        whose deployment waits nevertheless.
        """
        if plan.deployment_id not in self._host.loaded():
            return  # Its loader has just let go of it.
        known = Replica.objects.filter(
            deployment_id=plan.deployment_id,
            worker=self._worker,
            state=ReplicaState.READY,
            deployment__state=DeploymentState.SERVING,
        )
        if known.exists():
            return
        try:
            self._ready(plan, digest, None)
        except Exception:
            # Stopped meanwhile, or broker or database away: hold nothing that is not on record.
            logger.exception("Deployment %s cannot be reported; it is unloaded", plan.name)
            self._unload(plan.deployment_id)

    def _leave_queue(self, deployment_id: int) -> None:
        if deployment_id not in self._ceased:
            self._cease(deployment_queue(deployment_id))
            self._ceased.add(deployment_id)

    def _release(self, deployment_id: int) -> None:
        self._leave_queue(deployment_id)
        self._host.unload(deployment_id)
        self._ceased.discard(deployment_id)

    def _unload(self, deployment_id: int) -> None:
        logger.info("Unloading deployment %s", deployment_id)
        self._release(deployment_id)
        replica_report(deployment_id=deployment_id, worker=self._worker, state=ReplicaState.STOPPED)

    def _refuse(self, deployment_id: int, reason: str) -> None:
        """The bytes differ from the manifest."""
        logger.error("Deployment %s is refused: %s", deployment_id, reason)
        self._report_trouble(deployment_id, ReplicaState.REFUSED, reason)

    def _fail(self, deployment_id: int, name: str, reason: str) -> None:
        """This worker lacks something: room, memory, a device, a volume."""
        logger.error("Deployment %s could not be loaded: %s", name, reason)
        said = f"{name} could not be loaded: {reason}"
        self._report_trouble(deployment_id, ReplicaState.FAILED, said)

    def _report_trouble(self, deployment_id: int, state: ReplicaState, reason: str) -> None:
        if not self._may_try(deployment_id):
            return  # Reported already, and not tried again since.
        failures = self._count_failure(deployment_id)
        replica_report(
            deployment_id=deployment_id,
            worker=self._worker,
            state=state,
            message=reason[:1000],
            failures=failures.count,
            retry_in_s=failures.next_try - time.monotonic(),
        )

    def _count_failure(self, deployment_id: int) -> Failures:
        known = self._failures.get(deployment_id)
        count = 1 if known is None else known.count + 1
        wait = min(RETRY_FIRST_S * 2 ** min(count - 1, 16), RETRY_LONGEST_S)
        failures = self._failures[deployment_id] = Failures(count, time.monotonic() + wait)
        return failures


def _words(error: BaseException) -> str:
    return error.message if isinstance(error, DomainError) else f"{type(error).__name__}: {error}"


def _check_wanted(plan: LoadPlan) -> None:
    """Raises WrongState unless the deployment is live and its release may serve these bytes."""
    deployment: Deployment | None = live_deployments().filter(pk=plan.deployment_id).first()
    if deployment is None:
        raise WrongState(f"Deployment {plan.name} was stopped while it was loaded.")
    if load_plan(deployment).digest != plan.digest:
        raise WrongState(f"Deployment {plan.name} names other bytes than were loaded.")
