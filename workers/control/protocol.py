"""Operations that an engine worker needs from the control plane, and their messages.

On the control plane's own machine `direct.py` calls the services and reads the store. On a node,
which has neither database nor store, `workers.remote` makes requests.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import Field, RootModel

from governance.errors import DomainError, InvalidInput
from registry.catalog.answers import ANSWER_MAX, ROWS_MAX
from registry.catalog.code import NO_PACKAGES
from registry.catalog.engines import EngineName
from registry.manifests import Manifest
from registry.media.store import MediaReference
from workers.control.messages import (
    Bounded,
    Digits,
    Facts,
    ManifestField,
    Message,
    Name,
    Text,
    Whole,
    WorkerBody,
    made,
)
from workers.deployments.models import ReplicaState
from workers.offers.models import WorkerRole
from workers.offers.values import TASKS_MAX, Offers, TaskName, TaskOffer, offers_cut
from workers.placement.capacity import Capacity
from workers.run.order import Sha256

Engines = Annotated[
    list[Annotated[EngineName, Field(strict=False)]], Field(max_length=len(EngineName))
]
Digest = Annotated[Text, Field(max_length=64)]
# Characters of a report's message.
REPORT_MAX = 1_000
# IDs of rows with commas between them.
_NUMBERS = r"^([1-9][0-9]{0,17}(,[1-9][0-9]{0,17})*)?$"


@dataclass(frozen=True, slots=True)
class Weights:
    """The files of one version, by manifest."""

    name: str
    digest: str
    manifest: ManifestField

    def __post_init__(self) -> None:
        if self.manifest.digest != self.digest:
            raise InvalidInput("The manifest of a plan does not have its digest.")


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Everything that a host needs in order to load one deployment.

    `engine` and `runner` are dotted names; `engine_name` is what the release calls the engine, and
    `dtype` the precision that it names, None for the stored one. `adapter` stands on `weights`;
    without one the weights serve alone. `prompt` stands on the adapter, or on the weights. `digest`
    is the one that the approved release names; `expires_at` is when it stops serving, in seconds
    since the epoch. `code` is the digest of the task's packages that the dossier names, and
    `packages` names them for people.
    """

    deployment_id: int
    name: str
    task: str
    engine: str
    runner: str
    architectures: tuple[str, ...]
    digest: str
    expires_at: float
    weights: Weights
    adapter: Weights | None = None
    prompt: Weights | None = None
    engine_name: str = EngineName.OWN
    dtype: str | None = None
    code: str = NO_PACKAGES.digest
    packages: str = NO_PACKAGES.title

    @property
    def top(self) -> Weights:
        """The files of the version that is served."""
        return self.prompt or self.adapter or self.weights


@dataclass(frozen=True, slots=True)
class Assignment:
    """A deployment that a worker must hold, report as failed, or unload after its last requests.

    Attributes:
        digest: Of the version that the release names.
        lease_s: Seconds that its lease had left when the control plane was asked.
        recorded: The control plane has this worker's copy as ready, and the deployment as serving.
        refusal: Why it must not be held, which the worker reports; empty when it is to be held.
        leaving: It may serve and is assigned to other workers: this one answers what it has, and
            unloads it.
    """

    deployment_id: int
    name: str
    digest: str
    lease_s: float
    recorded: bool = False
    refusal: str = ""
    leaving: bool = False


SoftwareObject = Annotated[Mapping[str, Mapping[str, str]], Field(max_length=64), Bounded]


@dataclass(frozen=True, slots=True)
class Software:
    """The software of a worker: the versions that each engine's answers depend on, and the digest
    and the names of the packages of each task that another package provides."""

    environments: SoftwareObject = field(default_factory=dict)
    code: SoftwareObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReferenceRequest:
    """A request whose answer a dossier names. Files in its inputs are named by SHA-256."""

    row: int
    inputs: dict[str, Any]
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """The state of one worker's copy of a deployment.

    Attributes:
        loaded_digest: What was hashed while loading.
        code: Digest of the packages of the task that the worker runs.
        failures: Loads that failed in a row; the next one is tried in `retry_in_s` seconds.
    """

    deployment_id: Annotated[int, Field(ge=1, le=2**63 - 1)]
    state: ReplicaState
    loaded_digest: Digest = ""
    message: Annotated[Text, Field(max_length=REPORT_MAX)] = ""
    load_seconds: Annotated[float, Field(ge=0, le=1e6)] | None = None
    failures: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    retry_in_s: Annotated[float, Field(ge=-3600, le=3600)] | None = None
    code: Digest = ""


class AssignmentsQuery(WorkerBody):
    """The worker, the engines that it can start, and the deployments that it holds, with commas
    between them."""

    engines: Annotated[Text, Field(min_length=1, max_length=100)]
    held: Annotated[Text, Field(max_length=20_000, pattern=_NUMBERS)] = ""


class Assignments(RootModel[list[Assignment]]):
    """Deployments to hold; those with a refusal are reported as failed, those that leave are
    unloaded once they have answered what they have."""


class Plan(RootModel[LoadPlan]):
    """Plan of loading a deployment."""


class References(RootModel[list[ReferenceRequest]]):
    """Requests whose answers the dossier names."""


class ReferenceResult(Message):
    """The answer to one request; `failed` says why there is none."""

    row: Whole
    text: Annotated[str, Field(max_length=4 * ANSWER_MAX)] = ""
    results: Any = None
    failed: Annotated[Text, Field(min_length=1, max_length=200)] | None = None


class ReferencesBody(WorkerBody):
    """A worker's answers to the requests of the dossier."""

    answers: Annotated[list[ReferenceResult], Field(max_length=ROWS_MAX)]


class ReplicaBody(WorkerBody):
    """State of one worker's copy."""

    report: ReplicaReport


class ReplicaStateAnswer(Message):
    """The state that was recorded: of other bytes than the release names, `refused`."""

    state: str


class HeartbeatBody(WorkerBody):
    """A worker that is alive, what it offers and, now and then, what its machine has."""

    engines: Engines
    facts: Facts | None = None


class WorkerTasksBody(WorkerBody):
    """A worker, the work that it takes, and its tasks by name."""

    role: WorkerRole
    tasks: Annotated[dict[TaskName, TaskOffer], Field(max_length=TASKS_MAX), Bounded]


def tasks_body(worker: str, role: WorkerRole, offers: Offers) -> WorkerTasksBody:
    """Return the report of a worker's tasks. Raises InvalidInput."""
    return made(WorkerTasksBody, worker=worker, role=role, tasks=offers_cut(offers))


class WorkerKeyBody(WorkerBody):
    """A worker process's public key (X25519, hexadecimal), made anew at each start."""

    public_key: Sha256
    engines: Engines
    capacity: Capacity
    software: Software = Software()


class MediaQuery(Message):
    """Name and size of a file, as the request's reference states them."""

    media: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    size: Digits


class MediaResultQuery(Message):
    """The kind of file."""

    content_type: Name


class MediaAnswer(RootModel[MediaReference]):
    """The reference that the reply names in place of the file."""


class CodeDiffers(DomainError):
    """The worker runs other packages of a task than the release names (409)."""

    code = "code_differs"
    status = 409
    title = "Other code than was approved"


class EngineControl(Protocol):
    """The control plane, as one engine worker uses it from several threads.

    Every method may raise `DomainError`, and the errors of its transport.
    """

    def desired(
        self, *, worker: str, engines: Sequence[str], held: Collection[int] = ()
    ) -> list[Assignment]:
        """Return what `worker` is to hold or to report, ordered by ID. `engines` are the names of
        those that it can start, and `held` the IDs of what it has loaded."""

    def current_plan(self, deployment_id: int) -> LoadPlan:
        """Return the current plan of a deployment.

        Raises:
            WrongState: it may not serve.
            ManifestMismatch: its manifest is not the one that its digest names.
        """

    def copy_version(self, deployment_id: int, manifest: Manifest, target: Path) -> None:
        """Copy files that a deployment needs to the new folder `target`, hashing what is written.

        Raises:
            ManifestMismatch: names the first file that is different.
            FilesUnreadable: names the first file that is missing or cannot be read.
            OSError: `target` exists, or has no room.
        """

    def replica_report(self, *, worker: str, report: ReplicaReport) -> str:
        """Record the state of this worker's copy; return the state that was recorded.

        Raises:
            WrongState: the deployment is not live any more; a ready copy must be unloaded.
        """

    def replicas_heartbeat(self, *, worker: str, engines: Sequence[str]) -> None:
        """Record that `worker` is alive, and the engines that it offers."""

    def replicas_stop(self, *, worker: str) -> None:
        """Record that `worker` starts or ends: it holds nothing."""

    def references(self, *, worker: str, deployment_id: int) -> list[ReferenceRequest]:
        """Return the requests whose answers are compared before a deployment serves on `worker`;
        none when it needs no comparison there.

        Raises:
            NotFound: the deployment is not live any more.
        """

    def reference_file(self, deployment_id: int, sha256: str) -> BytesIO:
        """Return a file that such a request names, all of whose bytes have been hashed.

        Raises:
            DomainError: it is gone, is another one, or cannot be reached.
        """

    def references_report(
        self, *, worker: str, deployment_id: int, answers: Sequence[Mapping[str, Any]]
    ) -> None:
        """Have the answers compared with those of the dossier, and the result recorded."""

    def worker_key_register(
        self,
        *,
        worker: str,
        public_key: str,
        engines: Sequence[str],
        capacity: Capacity,
        software: Software,
    ) -> None:
        """Make `public_key` the one that gateways seal this worker's requests for, and record what
        the worker offers, has and runs.
        """

    def tasks_report(self, *, worker: str, offers: Offers) -> None:
        """Record the tasks that `worker` offers."""

    def drop_broken(self) -> None:
        """Drop a failed connection of this thread; called before each round."""

    def close(self) -> None:
        """Close the connections of this thread; called at its end."""


class MediaFiles(Protocol):
    """The short-lived files of requests to one deployment each."""

    def read(self, deployment_id: int, reference: MediaReference) -> BytesIO:
        """Return the bytes of a reference, all of which have been hashed.

        Raises:
            DomainError: the file is gone, is another one, or cannot be reached.
        """

    def write(self, deployment_id: int, data: bytes, content_type: str) -> MediaReference:
        """Keep a file that a runner made, for the gateway.

        Raises:
            DomainError: there is no room for it, or it cannot be sent.
        """
