"""Input about jobs: fine-tunes, evaluations, and what follows a fine-tune."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from governance.bounds import DEPARTMENT_MAX, NAME_MAX
from governance.schemas import Choice, Column, Filter, Line, Schema, Slug
from registry.datasets.parsing import MAX_ROWS
from registry.releases.drafts.content import DEPARTMENTS_MAX
from registry.releases.models import Environment
from workers.jobs.models import JobKind, JobState
from workers.run.order import MAX_DEVICES, MAX_MEMORY_GIB, MAX_MINUTES, MAX_NODES

Name = Annotated[Slug, Field(max_length=NAME_MAX)]
Method = Annotated[Line, Field(max_length=40)]
Priority = Literal["low", "normal", "high"]
RowCount = Annotated[int, Field(ge=1, le=MAX_ROWS)]


class JobResources(Schema):
    """The machines that a job requests. Recipes that run in one process take no more than one
    device; `minutes` stops a job that takes longer."""

    devices: int | None = Field(default=None, ge=1, le=MAX_DEVICES)
    nodes: int | None = Field(default=None, ge=1, le=MAX_NODES)
    memory_gib: int | None = Field(default=None, ge=1, le=MAX_MEMORY_GIB)
    minutes: int | None = Field(default=None, ge=1, le=MAX_MINUTES)


class ChainRelease(Schema):
    """The release draft at the end of a chain. Without `departments`, that of the model; without
    `deployment_name`, the model's name."""

    environment: Choice[Environment]
    departments: list[Annotated[Slug, Field(max_length=DEPARTMENT_MAX)]] | None = Field(
        default=None, max_length=DEPARTMENTS_MAX
    )
    deployment_name: Name | None = None


class JobFilter(Filter):
    """Filters of the list."""

    state: JobState | None = None
    kind: JobKind | None = None
    department: Annotated[Line | None, Column("department__slug")] = Field(
        default=None, max_length=DEPARTMENT_MAX
    )
