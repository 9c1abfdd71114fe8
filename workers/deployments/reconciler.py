"""Bring an engine worker to the desired state: exactly the assigned deployments whose release may
serve, loaded from verified bytes. Runs in the engine worker, and controls engines through `Host`.

One thread unloads and another loads, so that a load of minutes does not delay a stop or recall.

Without the control plane or the broker, loaded bytes stay loaded and answer nothing once their
lease is over. On return they are confirmed, or unloaded if the control plane does not list them.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from django.db import InterfaceError, OperationalError

from governance.errors import (
    DomainError,
    NotAuthenticated,
    NotFound,
    QuotaExceeded,
    Unavailable,
    WrongState,
)
from registry.catalog.engines import EngineName
from registry.manifests import ManifestMismatch
from registry.storage.pace import watch_fetches
from workers.control.protocol import (
    Assignment,
    EngineControl,
    ReplicaReport,
)
from workers.deployments.attempts import Attempts
from workers.deployments.copies import Leases, Reports
from workers.deployments.host import Host
from workers.deployments.models import ReplicaState
from workers.wire import deployment_queue, wakes

logger = logging.getLogger(__name__)
RECONCILE_S = 2.0
HEARTBEAT_S = 3.0
# Pause while the control plane or the broker is away, so that serving resumes soon.
AWAY_S = 0.5
# Errors that say nothing about a deployment: the control plane or the broker is away, or refuses
# this machine for now.
_FOR_NOW = (Unavailable, NotAuthenticated, QuotaExceeded)
AWAY = (*_FOR_NOW, OperationalError, InterfaceError, ConnectionError, TimeoutError)
# A deployment that moved to other workers is unloaded once it has been quiet for this long: a
# request that Celery has fetched may still be on its way to the engine.
QUIET_S = 4.0


@dataclass(slots=True)
class Leaving:
    """Monotonic times of a deployment that drains: its start, and when it last had requests."""

    since: float
    busy_at: float


class Reconciler:
    """Loops of one engine worker that load, unload and report deployments.

    Args:
        control: The control plane.
        worker: The worker's name, unique in the cluster and stable over restarts.
        consume: Start reading a queue; raises if the broker does not confirm.
        cease: Stop reading a queue.
        offers: Names of the engines that this worker can start; it ignores other deployments.
        answers: Return whether requests run on a deployment.
        longest_s: Longest duration of a request in seconds.
        keep_s: Time without the control plane after which everything is unloaded, in seconds.
        connected: Return whether the broker can be read now.
        register: Register this worker with the control plane; called before any report, until it
            succeeds, and again after the registration has expired.
    """

    def __init__(
        self,
        host: Host,
        control: EngineControl,
        *,
        worker: str,
        consume: Callable[[str], None],
        cease: Callable[[str], None],
        offers: Sequence[str] = (EngineName.OWN,),
        answers: Callable[[int], bool] = lambda _deployment_id: False,
        longest_s: float = 0.0,
        keep_s: float = math.inf,
        connected: Callable[[], bool] = lambda: True,
        register: Callable[[], None] = lambda: None,
    ) -> None:
        self._register = register
        self._begun = threading.Event()
        self._answers = answers
        self._longest_s = longest_s
        self._keep_s = keep_s
        self._connected = connected
        self._settled_at = time.monotonic()
        self._away = ""
        # Loaded copies that the control plane or the broker has not confirmed since it was away; of
        # these, some may not have been compared yet after their load.
        self._unconfirmed: set[int] = set()
        self._uncompared: set[int] = set()
        self._leaving: dict[int, Leaving] = {}
        self._offers = tuple(offers)
        self._host = host
        self._control = control
        self._worker = worker
        self._consume = consume
        self._cease = cease
        self._woken = threading.Event()
        self._loads_woken = threading.Event()
        self._missing: list[Assignment] = []
        self._loading: int | None = None
        self._ceased: set[int] = set()
        self._attempts = Attempts()
        self._reports = Reports(control, worker, self._attempts)
        self._leases = Leases(host)

    def wake(self, message: str = "") -> None:
        """Reconcile now, unless the message names other workers alone (`wire.wake_message`)."""
        if wakes(message, self._worker):
            self._woken.set()

    def run(self, stop: threading.Event) -> None:
        """Call `settle` every 2 s, when woken, and more often while something is away, until
        `stop`; then unload everything.
        """
        while not stop.is_set():
            self._control.drop_broken()
            self._woken.wait(RECONCILE_S if self._round() else AWAY_S)
            self._woken.clear()
        self._loads_woken.set()
        for deployment_id in self._host.loaded():
            self._host.unload(deployment_id)
        try:
            self._control.replicas_stop(worker=self._worker)
        except Exception:
            logger.exception("The end of this worker was not reported; its replicas will expire")
        self._control.close()

    def _round(self) -> bool:
        """Settle; return whether that succeeded and every loaded copy is confirmed."""
        try:
            if not self._begun.is_set():
                self._begin()
            self.settle()
        except NotAuthenticated as error:
            # A revoked node, or one whose key another process uses, must stop answering.
            self._leases.extend({})
            self._say_away(f"This worker serves nothing: {error.message} {error.hint}")
        except Exception as error:
            self._say_away(f"Reconciling failed and is tried again: {_words(error)}")
        else:
            now = time.monotonic()
            if self._away:
                logger.warning("The control plane was away for %.0f s", now - self._settled_at)
            self._away, self._settled_at = "", now
            return not self._unconfirmed
        self._lapse()
        return False

    def _say_away(self, sentence: str) -> None:
        if sentence != self._away:
            logger.error("%s", sentence, exc_info=True)
        self._away = sentence

    def _lapse(self) -> None:
        """Leave the queues of copies whose lease is over, so that other workers answer; unload all
        copies if the control plane has been away for too long.
        """
        away_s = time.monotonic() - self._settled_at
        for pk in self._host.loaded():
            if pk == self._loading:
                continue  # Its loader asks before it is ready.
            if away_s > self._keep_s:
                logger.error("Unloading deployment %s: no control plane for %.0f s", pk, away_s)
                self._release(pk)
                self._reports.owe_end(pk)
            elif not self._leases.servable(pk):
                self._leave_queue(pk)

    def _begin(self) -> None:
        """Register the worker. The next round reports its replicas again."""
        self._register()
        self._control.replicas_stop(worker=self._worker)
        self._reports.begin()
        self._begun.set()

    def run_loads(self, stop: threading.Event) -> None:
        """Load missing deployments one after another until `stop`."""
        while not stop.is_set():
            self._control.drop_broken()
            try:
                self.load_missing(stop)
            except Exception:
                logger.exception("Loading failed; the next round tries again")
            self._loads_woken.wait(RECONCILE_S)
            self._loads_woken.clear()
        self._control.close()

    def beat(self, stop: threading.Event) -> None:
        """Send a heartbeat every 3 s until `stop`."""
        while not stop.wait(HEARTBEAT_S):
            self._control.drop_broken()
            try:
                if self._begun.is_set():
                    self._control.replicas_heartbeat(worker=self._worker, engines=self._offers)
            except NotFound:
                # The worker was silent for so long that its registration expired.
                self._begun.clear()
                self._woken.set()
            except Exception:
                logger.exception("No heartbeat was sent")
        self._control.close()

    def settle(self) -> None:
        """Unload deployments that may not serve, confirm those that serve, and list missing ones.

        An unwanted deployment whose bytes a missing one needs leaves its queue at once, but is
        unloaded only after that load, which is quick because it reuses the engine.
        """
        # Read the clock before the request, so that no lease lasts longer than granted.
        now = time.monotonic()
        assigned = self._control.desired(
            worker=self._worker, engines=self._offers, loaded=list(self._host.loaded())
        )
        servable = {each.deployment_id: each for each in assigned if not each.refusal}
        targets = {pk: each for pk, each in servable.items() if not each.leaving}
        self._release_ended(assigned)
        self._leases.extend({pk: now + each.lease_s for pk, each in servable.items()})
        loaded = self._host.loaded()
        here = set(loaded.values())
        missing = [each for pk, each in targets.items() if self._is_missing(pk, loaded)]
        # Load bytes that are already here first, since they are the quickest.
        self._missing = sorted(
            missing, key=lambda each: (each.digest not in here, each.deployment_id)
        )
        self._loads_woken.set()
        coming = {each.digest for each in missing if self._attempts.may_try(each.deployment_id)}
        for deployment_id, digest in loaded.items():
            assignment = targets.get(deployment_id)
            if deployment_id == self._loading:
                continue  # Its loader checks again whether it may serve.
            if assignment is not None and assignment.digest == digest:
                self._leaving.pop(deployment_id, None)
                if deployment_id not in self._uncompared:
                    self._confirm(assignment)
            elif deployment_id in servable and assignment is None:
                self._drain(servable[deployment_id])
            elif digest in coming:
                self._leave_queue(deployment_id)
            else:
                self._unload(deployment_id)
        for each in assigned:
            if each.refusal:
                self._reports.fail(each.deployment_id, each.name, each.refusal)
        self._reports.repeat_ends(targets)
        self._attempts.forget(now, {each.deployment_id for each in assigned})

    def _is_missing(self, deployment_id: int, loaded: Collection[int]) -> bool:
        return deployment_id not in loaded or deployment_id in self._uncompared

    def _drain(self, assignment: Assignment) -> None:
        """Take no more requests, report the end, and unload once running requests have ended."""
        pk, now = assignment.deployment_id, time.monotonic()
        leaving = self._leaving.get(pk)
        if leaving is None:
            leaving = self._leaving[pk] = Leaving(now, now)
            logger.info("Deployment %s is assigned to other workers", assignment.name)
            self._leave_queue(pk)
            self._reports.end(pk)
        if busy := self._answers(pk):
            leaving.busy_at = now
        quiet = not busy and now - leaving.busy_at >= QUIET_S
        if quiet or now - leaving.since > max(self._longest_s, assignment.answer_s):
            self._release(pk)

    def _release_ended(self, assigned: list[Assignment]) -> None:
        """Unload deployments whose engine ended; they are loaded again after a growing wait."""
        names = {each.deployment_id: each.name for each in assigned}
        for deployment_id, fault in self._host.faults().items():
            self._release(deployment_id)
            name = names.get(deployment_id, f"Deployment {deployment_id}")
            self._reports.fail(deployment_id, name, f"its engine ended. {fault}")

    def load_missing(self, stop: threading.Event) -> None:
        """Load, one after another, the deployments that the latest `settle` found missing."""
        while not stop.is_set() and (assignment := self._next()) is not None:
            self._loading = assignment.deployment_id
            try:
                self._load(assignment, stop)
            finally:
                self._missing = [each for each in self._missing if each is not assignment]
                self._loading = None
                self._woken.set()

    def _next(self) -> Assignment | None:
        loaded = self._host.loaded()
        for each in self._missing:
            pk = each.deployment_id
            if self._is_missing(pk, loaded) and self._attempts.may_try(pk):
                return each
        return None

    def _load(self, assignment: Assignment, stop: threading.Event) -> None:
        pk, name, started = assignment.deployment_id, assignment.name, time.monotonic()
        self._reports.send(ReplicaReport(pk, ReplicaState.LOADING))
        try:
            digest = self._host.loaded().get(pk)
            if digest is None:
                logger.info("Loading deployment %s (%s)", name, assignment.digest[:12])
                plan = self._control.current_plan(pk)
                with watch_fetches(lambda progress: self._tell(pk, progress, stop)):
                    digest = self._host.load(plan)
            if stop.is_set():
                self._host.unload(pk)
                return
            self._uncompared.add(pk)
            try:
                self._compare(pk, name)
                # Loading takes a while, and the plan may have changed since.
                if self._control.current_plan(pk).digest != digest:
                    raise WrongState(f"Deployment {name} names other bytes than were loaded.")
                self._uncompared.discard(pk)
                self._ready(pk, digest, time.monotonic() - started)
            except AWAY as error:
                self._keep(assignment, error)
        except (NotFound, WrongState) as error:
            # Stopped, or assigned to a worker of another node, during the load.
            logger.info("Deployment %s is not to be served: %s", name, error)
            self._unload(pk)
        except ManifestMismatch as error:
            self._release(pk)
            self._reports.refuse(pk, f"{name} was not loaded: {error.message}")
        except BaseException as error:
            # Rust libraries raise panics that are not an `Exception`; this thread must go on.
            logger.exception("Deployment %s could not be loaded", name)
            self._release(pk)
            self._reports.fail(pk, name, _words(error))

    def _compare(self, deployment_id: int, name: str) -> None:
        """Answer the dossier's requests if its answers were measured with other software; the
        comparison decides whether the copy may become ready.
        """
        requests = self._control.references(worker=self._worker, deployment_id=deployment_id)
        if not requests:
            return
        logger.info("Deployment %s answers %d requests of its dossier", name, len(requests))
        answers = self._host.answers(
            deployment_id,
            requests,
            lambda sha256: self._control.reference_file(deployment_id, sha256),
        )
        self._control.references_report(
            worker=self._worker, deployment_id=deployment_id, answers=answers
        )

    def _tell(self, deployment_id: int, progress: str, stop: threading.Event) -> None:
        """Report the progress of a slow load. Raises WrongState and NotFound if it must end."""
        logger.info("Deployment %s: %s", deployment_id, progress)
        if stop.is_set():
            raise WrongState("This worker ends.")
        try:
            self._reports.send(ReplicaReport(deployment_id, ReplicaState.LOADING, message=progress))
        except (NotFound, WrongState):
            raise
        except Exception:
            logger.exception("The progress of deployment %s was not reported", deployment_id)

    def _ready(self, deployment_id: int, digest: str, seconds: float | None) -> None:
        """Report the copy, and let it answer only once the control plane has recorded it as ready:
        gateways also seal requests for copies that are still loading.
        """
        if not self._connected():
            raise Unavailable("The broker is away.")
        self._reports.took(deployment_id)
        state = self._reports.send(
            ReplicaReport(
                deployment_id,
                ReplicaState.READY,
                loaded_digest=digest,
                load_seconds=seconds,
                code=self._host.code(deployment_id),
            )
        )
        if state != ReplicaState.READY:
            self._release(deployment_id)
            self._attempts.failed(deployment_id)
            return
        self._leases.record(deployment_id, ready=True)
        self._consume(deployment_queue(deployment_id))
        self._ceased.discard(deployment_id)
        self._unconfirmed.discard(deployment_id)
        self._attempts.succeeded(deployment_id)

    def _confirm(self, assignment: Assignment) -> None:
        """Report a copy again if the control plane no longer records it as ready, or if this worker
        has left its queue or could not confirm it.
        """
        pk = assignment.deployment_id
        if pk not in self._host.loaded():
            return  # Its loader may just have unloaded it.
        if assignment.recorded and pk not in self._ceased | self._unconfirmed:
            return
        try:
            self._ready(pk, assignment.digest, None)
        except AWAY as error:
            self._keep(assignment, error)
        except Exception:
            # Stopped meanwhile, for example.
            logger.exception("Deployment %s cannot be reported; it is unloaded", assignment.name)
            self._unload(pk)

    def _keep(self, assignment: Assignment, error: BaseException) -> None:
        """Keep a copy loaded that cannot be confirmed now; it answers nothing until it is."""
        pk = assignment.deployment_id
        if pk not in self._unconfirmed:
            logger.warning("Deployment %s waits, loaded: %s", assignment.name, _words(error))
        self._unconfirmed.add(pk)
        self._leases.record(pk, ready=False)

    def _leave_queue(self, deployment_id: int) -> None:
        if deployment_id not in self._ceased:
            self._cease(deployment_queue(deployment_id))
            self._ceased.add(deployment_id)

    def _release(self, deployment_id: int) -> None:
        self._leave_queue(deployment_id)
        self._leases.record(deployment_id, ready=False)
        self._host.unload(deployment_id)
        self._leaving.pop(deployment_id, None)
        for noted in (self._ceased, self._unconfirmed, self._uncompared):
            noted.discard(deployment_id)

    def _unload(self, deployment_id: int) -> None:
        logger.info("Unloading deployment %s", deployment_id)
        self._release(deployment_id)
        self._reports.end(deployment_id)


def _words(error: BaseException) -> str:
    return error.message if isinstance(error, DomainError) else f"{type(error).__name__}: {error}"
