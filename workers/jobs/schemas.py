"""Input schemas for jobs: fine-tunes, evaluations, and the steps that follow a fine-tune."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from governance.bounds import DEPARTMENT_MAX, NAME_MAX
from governance.schemas import (
    Choice,
    Filter,
    Id,
    Line,
    ParagraphsOrEmpty,
    Schema,
    Slug,
    rejecting,
)
from registry.datasets.parsing import MAX_ROWS
from registry.releases.models import DEPARTMENTS_MAX, Environment
from workers.jobs.chains import LINKS_MAX
from workers.jobs.models import JobKind, JobState
from workers.jobs.prompts import NOTE_MAX
from workers.run.order import MAX_DEVICES, MAX_MEMORY_GIB, MAX_MINUTES, MAX_NODES

OBJECT_MAX = 32_768
Name = Annotated[Slug, Field(max_length=NAME_MAX)]
Method = Annotated[Line, Field(max_length=40)]
Object = Annotated[
    dict[str, Any],
    Field(max_length=64),
    rejecting(lambda value: len(str(value)) > OBJECT_MAX, f"more than {OBJECT_MAX:,} characters"),
]
Priority = Literal["low", "normal", "high"]
RowCount = Annotated[int, Field(ge=1, le=MAX_ROWS)]


class JobResources(Schema):
    """Machines that a job requests. Recipes that run in one process use one device at most; a job
    that takes longer than `minutes` is stopped."""

    devices: int | None = Field(default=None, ge=1, le=MAX_DEVICES)
    nodes: int | None = Field(default=None, ge=1, le=MAX_NODES)
    memory_gib: int | None = Field(default=None, ge=1, le=MAX_MEMORY_GIB)
    minutes: int | None = Field(default=None, ge=1, le=MAX_MINUTES)


class ChainStep(Schema):
    """An evaluation of the version that the fine-tune makes."""

    dataset_version: Id
    max_rows: RowCount | None = None


class ChainRelease(Schema):
    """Release draft at the end of a chain. `departments` defaults to that of the model, and
    `deployment_name` to the model's name."""

    environment: Choice[Environment]
    departments: list[Annotated[Slug, Field(max_length=DEPARTMENT_MAX)]] | None = Field(
        default=None, max_length=DEPARTMENTS_MAX
    )
    deployment_name: Name | None = None


class NewFineTune(Schema):
    """Base, recipe and data of a fine-tune; `hyperparameters` follow the task's schema."""

    model: Name
    base_version: Id
    method: Method
    dataset_version: Id
    hyperparameters: Object = Field(default={})
    resources: JobResources | None = None
    priority: Priority = "normal"
    then: list[ChainStep] = Field(
        default=[],
        max_length=LINKS_MAX,
        description="Evaluations that follow, each after the one before it has succeeded.",
    )
    release: ChainRelease | None = Field(
        default=None,
        description="Makes a release draft after them, which a person completes and submits.",
    )


class NewEvaluation(Schema):
    """Version and data of an evaluation."""

    version: Id
    dataset_version: Id
    max_rows: RowCount | None = Field(
        default=None,
        description="Measure the first rows only. Such an evaluation decides no gates.",
    )
    priority: Priority = "normal"


class JobFilter(Filter):
    """Filters of the list of jobs."""

    state: JobState | None = None
    kind: JobKind | None = None
    department: Line | None = Field(
        default=None, max_length=DEPARTMENT_MAX, serialization_alias="department__slug"
    )


class JobPriorityChange(Schema):
    """A new priority."""

    priority: Priority


class JobChanges(Schema):
    """Request fields to change; a fine-tune and an evaluation accept different ones."""

    base_version: Id | None = None
    version: Id | None = None
    method: Method | None = None
    dataset_version: Id | None = None
    hyperparameters: Object | None = None
    resources: JobResources | None = None
    max_rows: RowCount | None = None
    priority: Priority | None = None


class NewPromptVersion(Schema):
    """A prompt on a base version. `document` has `system`, `template`, `variables`, `examples` and
    `decoding`."""

    model: Name
    base_version: Id
    document: Object
    note: ParagraphsOrEmpty = Field(default="", max_length=NOTE_MAX)


class NewHosted(Schema):
    """A hosted model as a version of `model`. `description` has the fields of a `hosted.json`, such
    as `provider`, `shape`, `base_url`, `model`, `region`, `credential` (its name) and `terms`."""

    model: Name
    description: Object
    digest: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="Reject the description unless it becomes a version with this digest.",
    )
