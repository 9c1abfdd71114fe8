"""Operations that a job supervisor needs from the control plane, and their messages.

`workers.control.direct_jobs` implements them with the services, on machines with the database;
`workers.remote.jobs` with requests, on nodes.
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
# Key in the data of an event whose line is a warning.
WARNING = "warning"
# Most reports in one request.
MAX_REPORTS = 1_000


class Cause(StrEnum):
    """Cause of an attempt's end without a result.

    `work`: the material or the settings. `code`: the code of the work, which would fail again.
    `limit`: a limit of the job or the machine, which another attempt would reach, too. `machine`:
    the machine currently lacks something, such as disk space, the store, a network or a package;
    such an attempt does not count. Only `work` is a verdict on the material.
    """

    WORK = "work"
    CODE = "code"
    LIMIT = "limit"
    MACHINE = "machine"


class LeaseLost(WrongState):
    """The lease ran out, and another worker may have the job; nothing was written (409)."""

    code = "lease_lost"
    title = "Lease lost"


@contextmanager
def skip_optional_input(name: str, *, required: bool) -> Iterator[None]:
    """Log and ignore an error in copying an optional input. A temporary error is still raised, so
    that the next attempt has the input."""
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
    """A worker's claim on a job under `fence`, valid for `lease_s` seconds after each renewal."""

    job_id: UUID
    fence: int
    attempt: int
    kind: str
    title: str
    worker: str
    lease_s: float


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    """`alive`: the lease was renewed. `cancel_requested`: a person requested the job to end.
    `pause_requested`: the run must write a checkpoint and stop."""

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


class ClaimReply(Message):
    """A claim and its order; both null if no job is claimable."""

    claim: Claim | None = None
    order: Order | None = None


class Lease(RootModel[HeartbeatReply]):
    """The state of a lease."""


class Reports(Message):
    """Reports in order, and the current phase of the run."""

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
    """Reason of a failed attempt; `retry` if another one may help. `lines` are the last lines that
    its run printed, and its traceback."""

    sentence: Annotated[Text, Field(min_length=1, max_length=SENTENCE_CHARACTERS)]
    retry: bool
    cause: Cause = Cause.WORK
    lines: Annotated[Paragraphs, Field(max_length=LINES_MAX)] = ""


class JobStateAnswer(Message):
    """The job's state."""

    state: str


class UploadQuery(Message):
    """Size of a whole file, and offset of the bytes of this request."""

    size: Digits
    offset: Digits = 0


class Offset(Message):
    """Number of bytes of a file that have arrived; `complete` once they are hashed."""

    offset: int
    complete: bool = False


class JobControl(Protocol):
    """The control plane's side of an attempt. Every call may raise NoAnswer; all but `claim` and
    `heartbeat` raise LeaseLost if the claim no longer holds."""

    def claim(self, job_id: str, worker: str) -> tuple[Claim, Order] | None:
        """Claim the first job in line; return None if none is claimable or its order fails.

        `job_id` comes from the message that woke the worker.
        """

    def tasks_report(self, worker: str, offers: Offers) -> None:
        """Record the tasks that `worker` offers: it claims only jobs of these tasks."""

    def heartbeat(self, claim: Claim) -> HeartbeatReply:
        """Renew the lease."""

    def report(self, claim: Claim, reports: Sequence[Report], phase: str) -> HeartbeatReply:
        """Append to the job's log and curves."""

    def working(self, claim: Claim, *, works: bool) -> None:
        """Start or stop counting device time: a run that waits for machines uses none."""

    def checkpoint(
        self, claim: Claim, name: str, manifest: Mapping[str, Any], remaining: Collection[str]
    ) -> None:
        """Record a checkpoint, and forget those that are not in `remaining`.

        Raises:
            OSError: the run has removed the checkpoint.
        """

    def deliver(self, claim: Claim, result: dict[str, Any]) -> None:
        """Deliver the result. Raises InvalidInput if it is malformed."""

    def fail(
        self,
        claim: Claim,
        sentence: str,
        *,
        retry: bool,
        cause: Cause = Cause.WORK,
        lines: str = "",
    ) -> None:
        """End the attempt without a result. `lines` are the last lines that the run printed, and
        its traceback."""

    def canceled(self, claim: Claim) -> None:
        """Confirm that the run stopped as a person requested."""

    def paused(self, claim: Claim) -> None:
        """Confirm that the run stopped after its checkpoint, which is already recorded."""

    def close(self) -> None:
        """Close the connections of the calling thread."""


class Files(Protocol):
    """Folders and files of attempts on this machine."""

    def attempt_folder(self, claim: Claim) -> Path:
        """Return the folder of the attempt, which no other attempt uses."""

    def checkpoints_folder(self, claim: Claim) -> Path:
        """Return the folder of checkpoints that all attempts of the job share."""

    def fetch(self, order: Order, inputs: Path) -> None:
        """Put verified copies of the order's files below `inputs`.

        Raises:
            ManifestMismatch: a file differs from the order.
            FilesUnreadable, Unavailable: a file is missing.
        """

    def leave(self, claim: Claim) -> None:
        """Remove files that are not needed after the attempt."""
