"""Operations that a supervisor of jobs needs from the control plane, and their messages.

`workers.control.direct_jobs` implements them by the services, next to the database;
`workers.remote.jobs` by requests, on a node.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Protocol
from uuid import UUID

from pydantic import Field, RootModel

from governance.errors import DomainError, Unavailable, WrongState
from workers.control.messages import (
    LINES_MAX,
    Digits,
    ManifestField,
    Message,
    Paragraphs,
    Text,
    Whole,
)
from workers.offers.values import Offers
from workers.run.events import (
    MAX_CHECKPOINTS,
    MAX_VALUES,
    MESSAGE_CHARACTERS,
    CheckpointName,
    ValueName,
)
from workers.run.order import Order, Sha256
from workers.run.outcome import SENTENCE_CHARACTERS

logger = logging.getLogger(__name__)
# In an event's data: the line is a warning.
WARNING = "warning"
# Reports in one request.
MAX_REPORTS = 1_000


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


@contextmanager
def left_out(name: str, *, required: bool) -> Iterator[None]:
    """Log and pass over an error of copying an input that a run can do without; an error that may
    pass is raised all the same, so that the next attempt has the input."""
    try:
        yield
    except DomainError as error:
        if required or isinstance(error, Unavailable):
            raise
        logger.warning("Input %s is left out: %s", name, error.message)


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

    message: Annotated[Text, Field(max_length=MESSAGE_CHARACTERS)] = ""
    step: Whole | None = None
    total: Whole | None = None
    values: Annotated[dict[ValueName, float], Field(max_length=MAX_VALUES)] = field(
        default_factory=dict
    )


class Taken(Message):
    """A claim and its order; both null when no job is claimable."""

    claim: Claim | None = None
    order: Order | None = None


class Lease(RootModel[HeartbeatReply]):
    """The state of a lease."""


class Reports(Message):
    """Reports in their order, and what the run does now."""

    reports: Annotated[list[Report], Field(max_length=MAX_REPORTS)]
    phase: Annotated[Text, Field(max_length=40)] = ""


class CheckpointBody(Message):
    """A checkpoint whose files have arrived, and all checkpoints that the run still has."""

    name: CheckpointName
    manifest: ManifestField
    there: Annotated[list[CheckpointName], Field(max_length=MAX_CHECKPOINTS)]


class DeliverBody(Message):
    """The SHA-256 of the result, which has arrived as a file."""

    result: Sha256


class FailBody(Message):
    """The reason of a failed attempt; `retry` when another one may help. `lines` are the last that
    its run printed, and its traceback."""

    sentence: Annotated[Text, Field(min_length=1, max_length=SENTENCE_CHARACTERS)]
    retry: bool
    cause: Cause = Cause.WORK
    lines: Annotated[Paragraphs, Field(max_length=LINES_MAX)] = ""


class JobStateAnswer(Message):
    """The job's state."""

    state: str


class UploadQuery(Message):
    """The size of a whole file, and the offset of the bytes that are sent."""

    size: Digits
    offset: Digits = 0


class Offset(Message):
    """The bytes of a file that have arrived; `complete` once they were hashed."""

    offset: int
    complete: bool = False


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
