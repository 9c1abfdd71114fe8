"""Job operations with the services, for supervisors with database and artifact store."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from django.db import DataError, Error, close_old_connections, connections

from governance.errors import DomainError, InvalidInput, Unavailable
from registry.manifests import copy_verified
from registry.storage import store
from workers.control.jobs import Cause, Claim, HeartbeatReply, NoAnswer, Report, skip_optional_input
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


def answered(call: Callable[P, R]) -> Callable[P, R]:
    """Translate errors of the database into NoAnswer, and drop broken connections.

    A value that the database cannot store raises InvalidInput.
    """

    @wraps(call)
    def answer(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except DataError as error:
            # A retry would not help: the database works but cannot store the value.
            raise InvalidInput("The run sent a value that the database cannot store.") from error
        except Error as error:
            close_old_connections()
            raise NoAnswer(str(error)) from error

    return answer


class DirectJobs:
    """Implements `workers.control.jobs.JobControl`."""

    @answered
    def claim(self, job_id: str, worker: str) -> tuple[Claim, Order] | None:
        """Claim a job and make its order; the job fails if that is impossible."""
        claim = leases.job_claim(job_id=job_id, worker=worker)
        if claim is None:
            return None
        order = self.order(claim)
        return None if order is None else (claim, order)

    def order(self, claim: Claim) -> Order | None:
        """Make the order of a claimed job; if impossible, fail the job and return None."""
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
            failure = failure_of(error)
            leases.job_fail(
                claim,
                failure.sentence,
                retry=True,
                cause=Cause.MACHINE if failure.ending is Ending.LACKING else Cause.WORK,
            )
        return None

    @answered
    def tasks_report(self, worker: str, offers: Offers) -> None:
        worker_tasks_report(worker=worker, role=WorkerRole.COMPUTE, offers=offers)

    @answered
    def heartbeat(self, claim: Claim) -> HeartbeatReply:
        return leases.job_heartbeat(claim)

    @answered
    def report(self, claim: Claim, reports: Sequence[Report], phase: str) -> HeartbeatReply:
        return leases.job_report(claim, reports=reports, phase=phase)

    @answered
    def working(self, claim: Claim, *, works: bool) -> None:
        leases.job_working(claim, works=works)

    @answered
    def checkpoint(
        self, claim: Claim, name: str, manifest: Mapping[str, Any], remaining: Collection[str]
    ) -> None:
        leases.job_checkpoint(claim, name=name, manifest=manifest, remaining=remaining)

    @answered
    def deliver(self, claim: Claim, result: dict[str, Any]) -> None:
        leases.job_deliver(claim, result)

    @answered
    def fail(
        self,
        claim: Claim,
        sentence: str,
        *,
        retry: bool,
        cause: Cause = Cause.WORK,
        lines: str = "",
    ) -> None:
        leases.job_fail(claim, sentence, retry=retry, cause=cause, lines=lines)

    @answered
    def canceled(self, claim: Claim) -> None:
        leases.job_canceled(claim)

    @answered
    def paused(self, claim: Claim) -> None:
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
        """Copy the order's files below `inputs`, hashing the written bytes."""
        for folder in order.folders:
            with skip_optional_input(folder.name, required=folder.required):
                _copy_folder(folder, inputs / folder.name)
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
            with skip_optional_input(sha256[:12], required=files.required):
                (target / sha256).write_bytes(store.file_bytes(sha256))
        except FileNotFoundError as error:
            if files.required:
                raise Unavailable(
                    f"The artifact store lacks the file {sha256[:12]}.", hint=store.RESTORE
                ) from error
