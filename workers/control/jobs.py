"""Operations that a supervisor of jobs needs from the control plane, and their answers.

`workers.control.direct_jobs` implements it by the services, next to the database.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from governance.errors import WrongState
from workers.offers.values import Offers
from workers.run.order import Order

# In an event's data: the line is a warning.
WARNING = "warning"


class Cause(StrEnum):
    """Cause of an attempt's end without a result.

    `work`: the material or the settings. `code`: the code of the work, which would fail again.
    `limit`: a limit of the job or the machine, which another attempt would reach, too. `machine`:
    the machine lacks something for now, such as room on its disk, the store, a network or a
    package; such an attempt does not count. Only `work` says anything about the material.
    """

    WORK = "work"
    CODE = "code"
    LIMIT = "limit"
    MACHINE = "machine"


class LeaseLost(WrongState):
    """The lease ran out and the job may be another worker's now; nothing was written (409)."""

    code = "lease_lost"
    title = "Lease lost"


class NoAnswer(Exception):
    """The control plane does not answer; the same call may succeed later."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's hold on a job as of `fence`, for `lease_s` seconds after each renewal."""

    job_id: UUID
    fence: int
    attempt: int
    kind: str
    title: str
    worker: str
    lease_s: float


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    """`alive`: the lease was renewed. `cancel_requested`: a person wants the job to end.
    `pause_requested`: the run is to write a checkpoint and stop."""

    alive: bool
    cancel_requested: bool
    pause_requested: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """One log line, or one point of the curves: `values` at `step` of `total`."""

    message: str = ""
    step: int | None = None
    total: int | None = None
    values: dict[str, float] = field(default_factory=dict)


class JobControl(Protocol):
    """The control plane's side of an attempt. Every call may raise NoAnswer; all but `claim` and
    `heartbeat` raise LeaseLost when the claim no longer holds."""

    def claim(self, job_id: str, worker: str) -> tuple[Claim, Order] | None:
        """Take the job that is first in line; None when none is claimable, or no order can be made.

        `job_id` is the one that the message names, which woke the worker.
        """

    def tasks_report(self, worker: str, offers: Offers) -> None:
        """Record the tasks that `worker` offers: it claims jobs of no others."""

    def heartbeat(self, claim: Claim) -> HeartbeatReply:
        """Renew the lease."""

    def report(self, claim: Claim, reports: Sequence[Report], phase: str) -> HeartbeatReply:
        """Append to the job's log and curves."""

    def working(self, claim: Claim, *, works: bool) -> None:
        """Count device time only while the run has machines: not while it waits for them."""

    def checkpoint(
        self, claim: Claim, name: str, manifest: Mapping[str, Any], there: Collection[str]
    ) -> None:
        """Record a checkpoint, and forget those that are no longer `there`.

        Raises:
            OSError: the run has removed it.
        """

    def deliver(self, claim: Claim, result: dict[str, Any]) -> None:
        """Hand over the result. Raises InvalidInput when it is malformed."""

    def fail(
        self,
        claim: Claim,
        sentence: str,
        *,
        retry: bool,
        cause: Cause = Cause.WORK,
        lines: str = "",
    ) -> None:
        """End the attempt without a result. `lines` are the last that the run printed, and its
        traceback."""

    def canceled(self, claim: Claim) -> None:
        """Confirm that the run stopped as a person requested."""

    def paused(self, claim: Claim) -> None:
        """Confirm that the run stopped after its checkpoint, which was recorded before."""

    def close(self) -> None:
        """Close the connections of the calling thread."""


class Files(Protocol):
    """Folders and bytes of attempts on this machine."""

    def attempt_folder(self, claim: Claim) -> Path:
        """Return the folder of the attempt, which no other attempt uses."""

    def checkpoints_folder(self, claim: Claim) -> Path:
        """Return the folder where attempts of the job find each other's checkpoints."""

    def fetch(self, order: Order, inputs: Path) -> None:
        """Put verified copies of the order's files below `inputs`.

        Raises:
            ManifestMismatch: other bytes than those that the order names.
            FilesUnreadable, Unavailable: a file is missing.
        """

    def leave(self, claim: Claim) -> None:
        """Remove what nothing needs after the attempt."""
