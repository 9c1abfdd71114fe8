"""Jobs by the services, for supervisors that reach the database and the artifact store."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from django.db import DataError, Error, close_old_connections, connections

from governance.errors import DomainError, InvalidInput, Unavailable
from registry import store
from registry.manifests import copy_verified
from workers.control.jobs import Cause, Claim, HeartbeatReply, NoAnswer, Report
from workers.jobs import leases, workspace
from workers.jobs.orders import order_make
from workers.offers.models import WorkerRole
from workers.offers.services import worker_tasks_report
from workers.offers.values import Offers
from workers.run.failures import failure_of, is_lack
from workers.run.order import Folder, LooseFiles, Order
from workers.run.outcome import Ending

logger = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")


def _answered(call: Callable[P, R]) -> Callable[P, R]:
    """Raise NoAnswer in place of the database's errors, and drop a broken connection.

    A value that the database cannot store raises InvalidInput.
    """

    @wraps(call)
    def answer(*given: P.args, **named: P.kwargs) -> R:
        try:
            return call(*given, **named)
        except DataError as error:
            # The same call fails again: the database is there, and cannot store this.
            raise InvalidInput("The run sent a value that the database cannot store.") from error
        except Error as error:
            close_old_connections()
            raise NoAnswer(str(error)) from error

    return answer


class DirectJobs:
    """Implements `workers.control.jobs.JobControl`."""

    @_answered
    def claim(self, job_id: str, worker: str) -> tuple[Claim, Order] | None:
        """Claim the job and make its order; a job of which none can be made fails."""
        claim = leases.job_claim(job_id=job_id, worker=worker)
        if claim is None:
            return None
        order = self.order(claim)
        return None if order is None else (claim, order)

    def order(self, claim: Claim) -> Order | None:
        """Make the order of a claimed job; None after failing a job of which none can be made."""
        try:
            return order_make(claim)
        except Error:
            raise
        except DomainError as error:
            lacking = is_lack(error)
            leases.job_fail(
                claim,
                error.message,
                retry=lacking,
                cause=Cause.MACHINE if lacking else Cause.WORK,
            )
        except Exception as error:
            logger.exception("Job %s has no order", claim.job_id)
            found = failure_of(error)
            leases.job_fail(
                claim,
                found.sentence,
                retry=True,
                cause=Cause.MACHINE if found.ending is Ending.LACKING else Cause.WORK,
            )
        return None

    @_answered
    def tasks_report(self, worker: str, offers: Offers) -> None:
        """Record the tasks that the worker offers."""
        worker_tasks_report(worker=worker, role=WorkerRole.COMPUTE, offers=offers)

    @_answered
    def heartbeat(self, claim: Claim) -> HeartbeatReply:
        """Renew the lease."""
        return leases.job_heartbeat(claim)

    @_answered
    def report(self, claim: Claim, reports: Sequence[Report], phase: str) -> HeartbeatReply:
        """Append to the job's log and curves."""
        return leases.job_report(claim, reports=reports, phase=phase)

    @_answered
    def working(self, claim: Claim, *, works: bool) -> None:
        """Stop or start the clock of the job's device time."""
        leases.job_working(claim, works=works)

    @_answered
    def checkpoint(
        self, claim: Claim, name: str, manifest: Mapping[str, Any], there: Collection[str]
    ) -> None:
        """Record a checkpoint."""
        leases.job_checkpoint(claim, name=name, manifest=manifest, there=there)

    @_answered
    def deliver(self, claim: Claim, result: dict[str, Any]) -> None:
        """Hand over the result."""
        leases.job_deliver(claim, result)

    @_answered
    def fail(
        self,
        claim: Claim,
        sentence: str,
        *,
        retry: bool,
        cause: Cause = Cause.WORK,
        lines: str = "",
    ) -> None:
        """End the attempt without a result."""
        leases.job_fail(claim, sentence, retry=retry, cause=cause, lines=lines)

    @_answered
    def canceled(self, claim: Claim) -> None:
        """Confirm that the run stopped."""
        leases.job_canceled(claim)

    @_answered
    def paused(self, claim: Claim) -> None:
        """Confirm that the run stopped after its checkpoint."""
        leases.job_paused(claim)

    def close(self) -> None:
        """Close the calling thread's connections to the database."""
        connections.close_all()


class StoreFiles:
    """Implements `workers.control.jobs.Files` with the artifact store and `ASSAY_DATA_DIR`."""

    def attempt_folder(self, claim: Claim) -> Path:
        """Return the attempt's folder in the shared working folder."""
        return workspace.attempt_folder(claim.job_id, claim.fence)

    def checkpoints_folder(self, claim: Claim) -> Path:
        """Return the job's folder of checkpoints, shared by all attempts."""
        return workspace.checkpoints_folder(claim.job_id)

    def fetch(self, order: Order, inputs: Path) -> None:
        """Copy the order's files below `inputs`, hashing what is written."""
        for folder in order.folders:
            try:
                _copy_folder(folder, inputs / folder.name)
            except DomainError as error:
                if folder.required or isinstance(error, Unavailable):
                    raise
                logger.warning("Input %s is left out: %s", folder.name, error.message)
        for files in order.files:
            _copy_loose(files, inputs / files.name)

    def leave(self, claim: Claim) -> None:
        """Remove the inputs; the controller stores the output."""
        shutil.rmtree(workspace.inputs_folder(claim.job_id, claim.fence), ignore_errors=True)


def _copy_folder(folder: Folder, target: Path) -> None:
    if folder.quarantine is None:
        store.copy_version(folder.files, target)
    else:
        copy_verified(store.quarantine_folder(folder.quarantine), target, folder.files)


def _copy_loose(files: LooseFiles, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    store.files_fetch(files.sha256s)
    for sha256 in files.sha256s:
        try:
            content = store.file_bytes(sha256)
        except FileNotFoundError as error:
            if files.required:
                raise Unavailable(
                    f"The artifact store lacks the file {sha256[:12]}.", hint=store.RESTORE
                ) from error
        except DomainError as error:
            if files.required or isinstance(error, Unavailable):
                raise
            logger.warning("Input %s is left out: %s", sha256[:12], error.message)
        else:
            (target / sha256).write_bytes(content)
