"""Leases of an engine worker's copies, and its reports on them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Mapping

from governance.errors import NotFound, WrongState
from workers.control.protocol import EngineControl, ReplicaReport
from workers.deployments.attempts import Attempts
from workers.deployments.host import Host
from workers.deployments.models import ReplicaState

logger = logging.getLogger(__name__)


class Leases:
    """End of each deployment's lease on the monotonic clock, and the copies that the control plane
    has recorded as ready. A copy answers only if it has both. Any thread may call.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._until: Mapping[int, float] = {}
        self._recorded: set[int] = set()
        self._lock = threading.Lock()

    def extend(self, until: Mapping[int, float]) -> None:
        """Let only these deployments answer, each until its time, if they are recorded as ready."""
        with self._lock:
            self._until = until
            self._grant()

    def record(self, deployment_id: int, *, ready: bool) -> None:
        """Note whether the control plane has recorded a copy as ready."""
        with self._lock:
            if ready:
                self._recorded.add(deployment_id)
            else:
                self._recorded.discard(deployment_id)
            self._grant()

    def servable(self, deployment_id: int) -> bool:
        """Return whether the lease of a deployment lasts."""
        return self._until.get(deployment_id, 0.0) > time.monotonic()

    def _grant(self) -> None:
        granted = self._until.keys() & self._recorded
        self._host.lease({pk: self._until[pk] for pk in granted})


class Reports:
    """Reports the states of one worker's copies to the control plane.

    The end of a copy is reported again until it is answered: gateways seal prompts for it until
    then.
    """

    def __init__(self, control: EngineControl, worker: str, attempts: Attempts) -> None:
        self._control = control
        self._worker = worker
        self._attempts = attempts
        self._owed: set[int] = set()

    def begin(self) -> None:
        """Forget the ends that are owed, because the control plane has no copy of this worker."""
        self._owed.clear()

    def send(self, report: ReplicaReport) -> str:
        """Send one report; return the recorded state. Raises as `EngineControl`."""
        return self._control.replica_report(worker=self._worker, report=report)

    def took(self, deployment_id: int) -> None:
        """Note that a copy is loaded, so that no earlier end of it is reported."""
        self._owed.discard(deployment_id)

    def owe_end(self, deployment_id: int) -> None:
        """Report the end of a copy in a later round."""
        self._owed.add(deployment_id)

    def end(self, deployment_id: int) -> None:
        """Report the end of a copy, now and until that is answered."""
        self._owed.add(deployment_id)
        try:
            self.send(ReplicaReport(deployment_id, ReplicaState.STOPPED))
        except (NotFound, WrongState) as error:
            logger.info("The end of deployment %s needs no report: %s", deployment_id, error)
        except Exception:
            logger.exception("The end of deployment %s was not reported yet", deployment_id)
            return
        self._owed.discard(deployment_id)

    def repeat_ends(self, targets: Collection[int]) -> None:
        """Repeat unanswered reports of ended copies, unless the deployment is wanted here again."""
        for deployment_id in list(self._owed):
            if deployment_id in targets:
                self._owed.discard(deployment_id)
            else:
                self.end(deployment_id)

    def refuse(self, deployment_id: int, reason: str) -> None:
        """Report that the bytes differ from the manifest."""
        self._trouble(deployment_id, ReplicaState.REFUSED, reason)

    def fail(self, deployment_id: int, name: str, reason: str) -> None:
        """Report that this worker lacks something: disk space, memory, a device, a volume."""
        sentence = f"{name} could not be loaded: {reason}"
        self._trouble(deployment_id, ReplicaState.FAILED, sentence)

    def _trouble(self, deployment_id: int, state: ReplicaState, reason: str) -> None:
        if not self._attempts.may_try(deployment_id):
            return  # Already reported, and not tried again since.
        logger.error("Deployment %s is %s here: %s", deployment_id, state.value, reason)
        failures = self._attempts.failed(deployment_id)
        self.send(
            ReplicaReport(
                deployment_id,
                state,
                message=reason[:1000],
                failures=failures.count,
                retry_in_s=failures.next_try - time.monotonic(),
            )
        )
