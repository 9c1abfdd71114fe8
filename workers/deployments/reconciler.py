"""Bring an engine worker to the desired state: exactly the assigned deployments whose release may
serve, loaded from verified bytes. Runs in the engine worker, and controls engines through `Host`.

One thread unloads and another loads, so that a load of minutes does not delay a stop or recall.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from governance.errors import DomainError, NotAuthenticated, NotFound, WrongState
from registry.catalog.engines import EngineName
from registry.manifests import ManifestMismatch
from registry.storage.pace import watch_fetches
from workers.control.protocol import (
    Assignment,
    EngineControl,
    ReplicaReport,
)
from workers.deployments.host import Host
from workers.deployments.models import ReplicaState
from workers.wire import deployment_queue, wakes

logger = logging.getLogger(__name__)
RECONCILE_S = 2.0
HEARTBEAT_S = 3.0
# A load that failed is tried again after this; each further failure doubles the wait.
RETRY_FIRST_S = 5.0
RETRY_LONGEST_S = 300.0
# A deployment that moved to other workers is unloaded once it has been quiet for this long: a
# request that Celery has fetched may still be on its way to the engine.
QUIET_S = 4.0
# A failure of an engine that ran for at least this long restarts the count of failures.
STEADY_S = 300.0


@dataclass(frozen=True, slots=True)
class Failures:
    """Consecutive failed loads of a deployment, and the monotonic time of the next attempt."""

    count: int
    next_try: float


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
        register: Callable[[], None] = lambda: None,
    ) -> None:
        self._register = register
        self._begun = threading.Event()
        # Ended copies whose report was not answered yet; they are reported again in every round.
        self._unreported: set[int] = set()
        self._answers = answers
        self._longest_s = longest_s
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
        self._failures: dict[int, Failures] = {}
        self._ready_at: dict[int, float] = {}
        # End of each deployment's lease, and the copies that the control plane has recorded as
        # ready: a copy answers only if it has both.
        self._servable_until: dict[int, float] = {}
        self._recorded_ready: set[int] = set()
        self._lease_lock = threading.Lock()

    def wake(self, message: str = "") -> None:
        """Reconcile now, unless the message names other workers alone (`wire.wake_message`)."""
        if wakes(message, self._worker):
            self._woken.set()

    def run(self, stop: threading.Event) -> None:
        """Call `settle` every 2 s, and when woken, until `stop`; then unload everything."""
        while not stop.is_set():
            self._control.drop_broken()
            try:
                if not self._begun.is_set():
                    self._begin()
                self.settle()
            except NotAuthenticated as error:
                # A revoked node, or one whose key another process uses, must stop answering.
                self._lease({})
                logger.error("This worker serves nothing: %s %s", error.message, error.hint)
            except Exception:
                logger.exception("Reconciling failed; the next round tries again")
            self._woken.wait(RECONCILE_S)
            self._woken.clear()
        self._loads_woken.set()
        for deployment_id in self._host.loaded():
            self._host.unload(deployment_id)
        try:
            self._control.replicas_stop(worker=self._worker)
        except Exception:
            logger.exception("The end of this worker was not reported; its replicas will expire")
        self._control.close()

    def _begin(self) -> None:
        """Register the worker. The next round reports its replicas again."""
        self._register()
        self._control.replicas_stop(worker=self._worker)
        self._unreported.clear()
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
        self._lease({pk: now + each.lease_s for pk, each in servable.items()})
        loaded = self._host.loaded()
        here = set(loaded.values())
        missing = [each for pk, each in targets.items() if pk not in loaded]
        # Load bytes that are already here first, since they are the quickest.
        self._missing = sorted(
            missing, key=lambda each: (each.digest not in here, each.deployment_id)
        )
        self._loads_woken.set()
        coming = {each.digest for each in missing if self._may_try(each.deployment_id)}
        for deployment_id, digest in loaded.items():
            assignment = targets.get(deployment_id)
            if deployment_id == self._loading:
                continue  # Its loader checks again whether it may serve.
            if assignment is not None and assignment.digest == digest:
                self._leaving.pop(deployment_id, None)
                self._confirm(assignment)
            elif deployment_id in servable and assignment is None:
                self._drain(servable[deployment_id])
            elif digest in coming:
                self._leave_queue(deployment_id)
            else:
                self._unload(deployment_id)
        for each in assigned:
            if each.refusal:
                self._fail(each.deployment_id, each.name, each.refusal)
        self._report_ends(targets)
        self._forget(now, {each.deployment_id for each in assigned})

    def _lease(self, servable_until: dict[int, float]) -> None:
        """Let deployments answer until these times if they are recorded as ready."""
        with self._lease_lock:
            self._servable_until = servable_until
            self._grant()

    def _record(self, deployment_id: int, *, ready: bool) -> None:
        with self._lease_lock:
            if ready:
                self._recorded_ready.add(deployment_id)
            else:
                self._recorded_ready.discard(deployment_id)
            self._grant()

    def _grant(self) -> None:
        granted = self._servable_until.keys() & self._recorded_ready
        self._host.lease({pk: self._servable_until[pk] for pk in granted})

    def _forget(self, now: float, assigned: set[int]) -> None:
        """Forget failures of deployments that are no longer assigned, unless they are recent: then
        a deployment may come back, and its failures still count.
        """
        for deployment_id in self._failures.keys() - assigned:
            failures = self._failures.get(deployment_id)
            if failures is not None and now - failures.next_try > RETRY_LONGEST_S:
                self._failures.pop(deployment_id, None)
                self._ready_at.pop(deployment_id, None)

    def _drain(self, assignment: Assignment) -> None:
        """Take no more requests, report the end, and unload once running requests have ended."""
        pk, now = assignment.deployment_id, time.monotonic()
        leaving = self._leaving.get(pk)
        if leaving is None:
            leaving = self._leaving[pk] = Leaving(now, now)
            logger.info("Deployment %s is assigned to other workers", assignment.name)
            self._leave_queue(pk)
            self._report_end(pk)
        if busy := self._answers(pk):
            leaving.busy_at = now
        quiet = not busy and now - leaving.busy_at >= QUIET_S
        if quiet or now - leaving.since > self._longest_s:
            self._release(pk)

    def _release_ended(self, assigned: list[Assignment]) -> None:
        """Unload deployments whose engine ended; they are loaded again after a growing wait."""
        names = {each.deployment_id: each.name for each in assigned}
        for deployment_id, fault in self._host.faults().items():
            self._release(deployment_id)
            name = names.get(deployment_id, f"Deployment {deployment_id}")
            self._fail(deployment_id, name, f"its engine ended. {fault}")

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
            if each.deployment_id not in loaded and self._may_try(each.deployment_id):
                return each
        return None

    def _may_try(self, deployment_id: int) -> bool:
        failures = self._failures.get(deployment_id)
        return failures is None or time.monotonic() >= failures.next_try

    def _load(self, assignment: Assignment, stop: threading.Event) -> None:
        pk, name, started = assignment.deployment_id, assignment.name, time.monotonic()
        self._report(ReplicaReport(pk, ReplicaState.LOADING))
        logger.info("Loading deployment %s (%s)", name, assignment.digest[:12])
        try:
            plan = self._control.current_plan(pk)
            with watch_fetches(lambda progress: self._tell(pk, progress, stop)):
                digest = self._host.load(plan)
            if stop.is_set():
                self._host.unload(pk)
                return
            self._compare(pk, name)
            # Loading takes a while, and the plan may have changed since.
            if self._control.current_plan(pk).digest != digest:
                raise WrongState(f"Deployment {name} names other bytes than were loaded.")
            self._ready(pk, digest, time.monotonic() - started)
        except (NotFound, WrongState) as error:
            # Stopped, or assigned to a worker of another node, during the load.
            logger.info("Deployment %s is not to be served: %s", name, error)
            self._unload(pk)
        except ManifestMismatch as error:
            self._release(pk)
            self._refuse(pk, f"{name} was not loaded: {error.message}")
        except BaseException as error:
            # Rust libraries raise panics that are not an `Exception`; this thread must go on.
            logger.exception("Deployment %s could not be loaded", name)
            self._release(pk)
            self._fail(pk, name, _words(error))

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
            self._report(ReplicaReport(deployment_id, ReplicaState.LOADING, message=progress))
        except (NotFound, WrongState):
            raise
        except Exception:
            logger.exception("The progress of deployment %s was not reported", deployment_id)

    def _ready(self, deployment_id: int, digest: str, seconds: float | None) -> None:
        """Report the copy, and let it answer only once the control plane has recorded it as ready:
        gateways also seal requests for copies that are still loading.
        """
        self._unreported.discard(deployment_id)
        state = self._report(
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
            self._count_failure(deployment_id)
            return
        self._record(deployment_id, ready=True)
        self._consume(deployment_queue(deployment_id))
        self._ceased.discard(deployment_id)
        self._ready_at[deployment_id] = time.monotonic()

    def _confirm(self, assignment: Assignment) -> None:
        """Report a copy again if the control plane no longer records it as ready, or if this worker
        has left its queue.
        """
        pk = assignment.deployment_id
        if pk not in self._host.loaded() or (assignment.recorded and pk not in self._ceased):
            return  # Its loader may just have unloaded it.
        try:
            self._ready(pk, assignment.digest, None)
        except Exception:
            # Stopped meanwhile, or broker or database unreachable: keep no unrecorded copy.
            logger.exception("Deployment %s cannot be reported; it is unloaded", assignment.name)
            self._unload(pk)

    def _leave_queue(self, deployment_id: int) -> None:
        if deployment_id not in self._ceased:
            self._cease(deployment_queue(deployment_id))
            self._ceased.add(deployment_id)

    def _release(self, deployment_id: int) -> None:
        self._leave_queue(deployment_id)
        self._record(deployment_id, ready=False)
        self._host.unload(deployment_id)
        self._ceased.discard(deployment_id)
        self._leaving.pop(deployment_id, None)

    def _unload(self, deployment_id: int) -> None:
        logger.info("Unloading deployment %s", deployment_id)
        self._release(deployment_id)
        self._report_end(deployment_id)

    def _report_ends(self, targets: Collection[int]) -> None:
        """Repeat unanswered reports of ended copies, unless the deployment is wanted here again."""
        for deployment_id in list(self._unreported):
            if deployment_id in targets:
                self._unreported.discard(deployment_id)
            else:
                self._report_end(deployment_id)

    def _report_end(self, deployment_id: int) -> None:
        """Report the end of a copy; gateways seal prompts for it until this is answered."""
        self._unreported.add(deployment_id)
        try:
            self._report(ReplicaReport(deployment_id, ReplicaState.STOPPED))
        except (NotFound, WrongState) as error:
            logger.info("The end of deployment %s needs no report: %s", deployment_id, error)
        except Exception:
            logger.exception("The end of deployment %s was not reported yet", deployment_id)
            return
        self._unreported.discard(deployment_id)

    def _refuse(self, deployment_id: int, reason: str) -> None:
        """Report that the bytes differ from the manifest."""
        self._report_trouble(deployment_id, ReplicaState.REFUSED, reason)

    def _fail(self, deployment_id: int, name: str, reason: str) -> None:
        """Report that this worker lacks something: disk space, memory, a device, a volume."""
        sentence = f"{name} could not be loaded: {reason}"
        self._report_trouble(deployment_id, ReplicaState.FAILED, sentence)

    def _report_trouble(self, deployment_id: int, state: ReplicaState, reason: str) -> None:
        if not self._may_try(deployment_id):
            return  # Already reported, and not tried again since.
        logger.error("Deployment %s is %s here: %s", deployment_id, state.value, reason)
        failures = self._count_failure(deployment_id)
        self._report(
            ReplicaReport(
                deployment_id,
                state,
                message=reason[:1000],
                failures=failures.count,
                retry_in_s=failures.next_try - time.monotonic(),
            )
        )

    def _report(self, report: ReplicaReport) -> str:
        return self._control.replica_report(worker=self._worker, report=report)

    def _count_failure(self, deployment_id: int) -> Failures:
        previous = self._failures.get(deployment_id)
        ready_at = self._ready_at.pop(deployment_id, None)
        if ready_at is not None and time.monotonic() - ready_at >= STEADY_S:
            previous = None
        count = 1 if previous is None else previous.count + 1
        wait = min(RETRY_FIRST_S * 2 ** min(count - 1, 16), RETRY_LONGEST_S)
        failures = self._failures[deployment_id] = Failures(count, time.monotonic() + wait)
        return failures


def _words(error: BaseException) -> str:
    return error.message if isinstance(error, DomainError) else f"{type(error).__name__}: {error}"
