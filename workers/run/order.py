"""The order: all input of one attempt of a job, as plain JSON.

The control plane creates it from the database (`workers.jobs.orders`). Files are named by manifest
or SHA-256; the supervisor puts verified copies below `inputs/` before the run starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from governance.faults import clauses
from registry.catalog.engines import EngineName
from registry.manifests import Manifest

# The supervisor removes the order when the attempt is over. Each process of the run looks for it at
# this interval, in seconds, and ends if it is gone.
ORDER_FILE, HELD_S = "order.json", 1.0
LOG_FILE = "log.txt"
INPUTS, OUTPUT, CHECKPOINTS = "inputs", "output", "checkpoints"
# Below `inputs`: the checkpoint to resume from, media by SHA-256, and texts by SHA-256.
RESUME, MEDIA, TEXTS = "resume", "media", "texts"
# A dataset of a million images names each by 64 digits.
MAX_ORDER_BYTES = 256 * 1024**2
_SHA256 = r"^[0-9a-f]{64}$"
# One part of a path: a folder below `inputs`.
_FOLDER = r"^[a-z0-9][a-z0-9_-]{0,39}$"
Sha256 = Annotated[str, Field(pattern=_SHA256)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Folder(_Part):
    """A folder below `inputs` and the manifest of its files.

    `quarantine` is the ID of the intake that delivered these files; None means that they come from
    the artifact store. A run works without a folder that is not `required`.
    """

    name: str = Field(pattern=_FOLDER)
    manifest: dict[str, Any]
    quarantine: int | None = None
    required: bool = True

    @field_validator("manifest")
    @classmethod
    def _well_formed(cls, value: dict[str, Any]) -> dict[str, Any]:
        return Manifest.from_json(value).to_json()

    @property
    def files(self) -> Manifest:
        """The files as a manifest."""
        return Manifest.from_json(self.manifest)


class LooseFiles(_Part):
    """Files below `inputs`/`name`, each under its SHA-256."""

    name: str = Field(pattern=_FOLDER)
    sha256s: tuple[Sha256, ...]
    required: bool = True


class Served(_Part):
    """A version to load: name, digest, task and engine."""

    name: str
    digest: Sha256
    task: str
    engine: EngineName = EngineName.OWN


class IntakeWork(_Part):
    """Check and convert the delivery in the folder `delivery`.

    The delivery is an adapter if `base_digest` names its base.
    """

    kind: Literal["intake"] = "intake"
    task: str
    keep_gguf: bool = False
    base_digest: Sha256 | None = None
    max_bytes: int


class FineTuneWork(_Part):
    """Fine-tune the version in the folder `base` on the rows in `data`.

    `base_digest` goes into the manifest of a version that needs its base; None for full weights.
    """

    kind: Literal["fine_tune"] = "fine_tune"
    task: str
    method: str
    hyperparameters: dict[str, Any] = Field(default_factory=dict)
    base_digest: Sha256 | None = None


class EvaluateWork(_Part):
    """Measure the version in the folder `version` on the rows in `data`.

    An adapter's base is in `base`, a prompt in `prompt`, the version's training rows in
    `training-data`, a judge in `judge`.
    """

    kind: Literal["evaluate"] = "evaluate"
    version: Served
    max_rows: int | None = None
    judge: Served | None = None


class Document(_Part):
    """A document version to index, and the SHA-256 of its text."""

    version: int
    text_sha256: Sha256


class IndexWork(_Part):
    """Index the documents with the version in the folder `embedding`.

    The current index is in the folder `index`, if the same version made it.
    """

    kind: Literal["index"] = "index"
    name: str
    chunk_characters: int
    overlap_characters: int
    documents: tuple[Document, ...]
    embedding: Served
    revision: int
    max_chunks: int


MAX_DEVICES, MAX_NODES, MAX_MEMORY_GIB, MAX_MINUTES = 64, 64, 4_096, 60 * 24 * 30


class Resources(_Part):
    """The machines that a run requests: devices (GPUs, or processes without GPUs) on each of
    `nodes` machines. None means the limit of the machine or the cluster's partition."""

    devices: int = Field(default=1, ge=1, le=MAX_DEVICES)
    nodes: int = Field(default=1, ge=1, le=MAX_NODES)
    memory_gib: int | None = Field(default=None, ge=1, le=MAX_MEMORY_GIB)
    minutes: int | None = Field(default=None, ge=1, le=MAX_MINUTES)

    @property
    def processes(self) -> int:
        """Number of processes that share the work."""
        return self.devices * self.nodes


Work = Annotated[IntakeWork | FineTuneWork | EvaluateWork | IndexWork, Field(discriminator="kind")]


class Order(_Part):
    """One attempt of a job.

    `checkpoints` maps names to manifests of recorded checkpoints; a run may resume only from these
    bytes. `max_output_bytes` bounds the delivered files. The supervisor sets `threads` for its
    machine; None means torch's default.
    """

    job: UUID
    title: str
    attempt: int = Field(ge=1)
    fence: int = Field(ge=1)
    work: Work
    folders: tuple[Folder, ...] = ()
    files: tuple[LooseFiles, ...] = ()
    checkpoints: dict[str, dict[str, Any]] = Field(default_factory=dict)
    max_output_bytes: int
    resources: Resources = Resources()
    threads: int | None = Field(default=None, ge=1)

    def named(self, name: str) -> Folder | None:
        """Return the folder with this name; None if there is none."""
        return next((folder for folder in self.folders if folder.name == name), None)

    def write(self, folder: Path) -> None:
        """Write the order into the folder of an attempt."""
        (folder / ORDER_FILE).write_text(self.model_dump_json(), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the order in the folder of an attempt. Raises ValueError and OSError."""
        file = folder / ORDER_FILE
        if file.stat().st_size > MAX_ORDER_BYTES:
            raise ValueError(f"{ORDER_FILE} is larger than {MAX_ORDER_BYTES:,} bytes")
        try:
            return cls.model_validate_json(file.read_bytes())
        except ValidationError as error:
            raise ValueError(f"{ORDER_FILE} is not an order: {clauses(error)[0]}") from error
