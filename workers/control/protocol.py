"""Operations that an engine worker needs from the control plane, and their messages.

On machines with database and store, `direct.py` calls the services. On nodes, which have neither,
`workers.remote` sends requests.
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
from registry.catalog.hosted import HostedDescription, ProbeResult
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
    checked_message,
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
# Most characters of a report's message.
REPORT_MAX = 1_000
# IDs of rows, separated by commas.
_NUMBERS = r"^([1-9][0-9]{0,17}(,[1-9][0-9]{0,17})*)?$"


@dataclass(frozen=True, slots=True)
class Weights:
    """Files of one version, by manifest."""

    name: str
    digest: str
    manifest: ManifestField

    def __post_init__(self) -> None:
        if self.manifest.digest != self.digest:
            raise InvalidInput("The manifest of a plan does not have its digest.")


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Everything that a host needs to load one deployment.

    `engine` and `runner` are dotted names; `engine_name` is the release's name of the engine, and
    `dtype` its precision, None for the stored one. `adapter` is optional and based on `weights`;
    `prompt` is optional and based on the adapter or on the weights. `digest` is that of the
    approved release; `expires_at` is when it stops serving, in seconds since the epoch. `code` is
    the dossier's digest of the task's packages, and `packages` names them for people.
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
        """Files of the version that is served."""
        return self.prompt or self.adapter or self.weights


@dataclass(frozen=True, slots=True)
class Assignment:
    """A deployment that a worker must load, report as failed, or unload after its last requests.

    Attributes:
        digest: Digest of the version that the release names.
        lease_s: Seconds left of its lease at the time of the request.
        recorded: The copy of this worker is recorded as ready, and the deployment as serving.
        refusal: Why it must not be loaded, which the worker reports; empty if it may.
        leaving: It may serve, but on other workers: this one finishes its requests and unloads it.
        answer_s: Longest streamed answer in seconds, if the deployment has a limit of its own.
    """

    deployment_id: int
    name: str
    digest: str
    lease_s: float
    recorded: bool = False
    refusal: str = ""
    leaving: bool = False
    answer_s: float = 0.0


SoftwareObject = Annotated[Mapping[str, Mapping[str, str]], Field(max_length=64), Bounded]


@dataclass(frozen=True, slots=True)
class Software:
    """Software of a worker. `environments`: versions that affect each engine's answers. `code`:
    digest and names of the packages of each task that is not Assay's own."""

    environments: SoftwareObject = field(default_factory=dict)
    code: SoftwareObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReferenceRequest:
    """A request whose answer is in a dossier. Files in its inputs are named by SHA-256."""

    row: int
    inputs: dict[str, Any]
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ProbeOrder:
    """A provider that an egress worker calls once for an intake, with `PROBE_TEXT` alone."""

    intake_id: int
    description: HostedDescription


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """State of one worker's copy of a deployment.

    Attributes:
        loaded_digest: Digest computed while loading.
        code: Digest of the worker's packages for the task.
        failures: Consecutive failed loads; the next one is tried in `retry_in_s` seconds.
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
    """The worker, its engines, and its loaded deployments, separated by commas."""

    engines: Annotated[Text, Field(min_length=1, max_length=100)]
    held: Annotated[Text, Field(max_length=20_000, pattern=_NUMBERS)] = ""


class Assignments(RootModel[list[Assignment]]):
    """Deployments to load. Those with a refusal are reported as failed; those that leave are
    unloaded once they have answered their requests."""


class Plan(RootModel[LoadPlan]):
    """Plan for loading a deployment."""


class References(RootModel[list[ReferenceRequest]]):
    """Requests whose answers are in the dossier."""


class ReferenceResult(Message):
    """Answer to one request; `failed` is the reason if there is none."""

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
    """The recorded state; `refused` if the bytes differ from those of the release."""

    state: str


class HeartbeatBody(WorkerBody):
    """Heartbeat of a worker: its engines and, now and then, facts about its machine."""

    engines: Engines
    facts: Facts | None = None


class WorkerTasksBody(WorkerBody):
    """A worker, its role, and its tasks by name."""

    role: WorkerRole
    tasks: Annotated[dict[TaskName, TaskOffer], Field(max_length=TASKS_MAX), Bounded]


def tasks_body(worker: str, role: WorkerRole, offers: Offers) -> WorkerTasksBody:
    """Return the report of a worker's tasks. Raises InvalidInput."""
    return checked_message(WorkerTasksBody, worker=worker, role=role, tasks=offers_cut(offers))


class WorkerKeyBody(WorkerBody):
    """A worker process's public key (X25519, hexadecimal), which is new at each start."""

    public_key: Sha256
    engines: Engines
    capacity: Capacity
    software: Software = Software()


class MediaQuery(Message):
    """Name and size of a media file, as in the request's reference."""

    media: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    size: Digits


class MediaResultQuery(Message):
    """The type of a media file."""

    content_type: Name


class MediaAnswer(RootModel[MediaReference]):
    """The reference that replaces the file in the reply."""


@dataclass(frozen=True, slots=True)
class SealedCredential:
    """A credential as the database holds it; its secret opens only with these values."""

    id: int
    department: str
    name: str
    kind: str
    hosts: tuple[str, ...]
    version: int
    sealed: bytes = field(repr=False)


class CodeDiffers(DomainError):
    """The worker's packages of a task differ from those of the release (409)."""

    code = "code_differs"
    status = 409
    title = "Other code than was approved"


class EngineControl(Protocol):
    """The control plane, as one engine worker uses it from several threads.

    Every method may raise `DomainError`, and the errors of its transport.
    """

    def desired(
        self, *, worker: str, engines: Sequence[str], loaded: Collection[int] = ()
    ) -> list[Assignment]:
        """Return the deployments that `worker` must load or report, ordered by ID. `engines` are
        the names of those that it can start, and `loaded` the IDs of loaded deployments."""

    def current_plan(self, deployment_id: int) -> LoadPlan:
        """Return the current plan of a deployment.

        Raises:
            WrongState: the deployment may not serve.
            ManifestMismatch: its manifest does not have its digest.
        """

    def copy_version(self, deployment_id: int, manifest: Manifest, target: Path) -> None:
        """Copy files of a deployment to the new folder `target`, hashing the written bytes.

        Raises:
            ManifestMismatch: a file differs; names the first one.
            FilesUnreadable: a file is missing or cannot be read; names the first one.
            OSError: `target` exists, or its disk is full.
        """

    def replica_report(self, *, worker: str, report: ReplicaReport) -> str:
        """Record the state of this worker's copy; return the recorded state.

        Raises:
            WrongState: the deployment is no longer live; a ready copy must be unloaded.
        """

    def replicas_heartbeat(self, *, worker: str, engines: Sequence[str]) -> None:
        """Record a heartbeat of `worker` and the engines that it offers."""

    def replicas_stop(self, *, worker: str) -> None:
        """Record that `worker` starts or ends, so that it has no replicas."""

    def references(self, *, worker: str, deployment_id: int) -> list[ReferenceRequest]:
        """Return the requests whose answers are compared before a deployment serves on `worker`;
        empty if no comparison is needed.

        Raises:
            NotFound: the deployment is no longer live.
        """

    def reference_file(self, deployment_id: int, sha256: str) -> BytesIO:
        """Return a verified file that a reference request refers to.

        Raises:
            DomainError: the file is missing, has other bytes, or cannot be reached.
        """

    def references_report(
        self, *, worker: str, deployment_id: int, answers: Sequence[Mapping[str, Any]]
    ) -> None:
        """Compare the answers with those of the dossier, and record the result."""

    def worker_key_register(
        self,
        *,
        worker: str,
        public_key: str,
        engines: Sequence[str],
        capacity: Capacity,
        software: Software,
    ) -> None:
        """Register the key for which gateways seal this worker's requests, and its engines,
        capacity and software.
        """

    def tasks_report(self, *, worker: str, offers: Offers) -> None:
        """Record the tasks that `worker` offers."""

    def credential(
        self,
        *,
        worker: str,
        deployment_id: int,
        name: str,
        host: str,
        intake_id: int = 0,
        job_id: str = "",
    ) -> SealedCredential:
        """Return a sealed credential of the deployment's department, and record its use.

        With `intake_id`, it belongs to the department of that intake, whose provider `worker` must
        call; with `job_id`, to the department of that evaluation, which `worker` runs.

        Raises:
            NotFound: the deployment is no longer live, or the intake's call or the evaluation is
                not this worker's.
            Unavailable: the department has no active credential of this name that may be sent to
                `host`, or this worker is on a node, which gets none.
        """

    def probes(self, *, worker: str) -> list[ProbeOrder]:
        """Return providers that `worker` must call now for intakes. No other worker gets them until
        their time is over. Only egress workers call this.

        Raises:
            NotPermitted: the worker is on a node.
        """

    def probe_report(self, *, worker: str, intake_id: int, result: ProbeResult) -> None:
        """Record the answers of the provider of an intake.

        Raises:
            WrongState: the order no longer belongs to `worker`.
            NotPermitted: the worker is on a node.
        """

    def model_stated(
        self, *, worker: str, deployment_id: int, model: str, fingerprint: str
    ) -> None:
        """Record the model and the fingerprint that an answer of a hosted deployment stated; either
        may be empty. Only egress workers call this.

        Raises:
            NotFound: the deployment does not exist, or no provider answers for it.
            NotPermitted: the worker is on a node.
        """

    def drop_broken(self) -> None:
        """Drop a failed connection of this thread; called before each round."""

    def close(self) -> None:
        """Close the connections of this thread; called at its end."""


class MediaFiles(Protocol):
    """Short-lived media files of requests; each belongs to one deployment."""

    def read(self, deployment_id: int, reference: MediaReference) -> BytesIO:
        """Return the verified bytes of a reference.

        Raises:
            DomainError: the file is missing, has other bytes, or cannot be reached.
        """

    def write(self, deployment_id: int, data: bytes, content_type: str) -> MediaReference:
        """Store a file that a runner made, for the gateway.

        Raises:
            DomainError: the store is full, or the file cannot be sent.
        """
