"""Input about models and their versions."""

from __future__ import annotations

from pydantic import Field

from governance.bounds import DEPARTMENT_MAX, DESCRIPTION_MAX, NAME_MAX, TASK_MAX
from governance.schemas import Filter, Line, Paragraphs, ParagraphsOrEmpty, Schema, Slug
from registry.versions.models import REASON_MAX


class ModelFilter(Filter):
    """Filters of the list."""

    department: Line | None = Field(
        default=None, max_length=DEPARTMENT_MAX, serialization_alias="department__slug"
    )
    task: Line | None = Field(default=None, max_length=TASK_MAX)


class NewModel(Schema):
    """A new model; `shared` lets other departments see and adapt it."""

    name: Slug = Field(max_length=NAME_MAX)
    department: Slug = Field(max_length=DEPARTMENT_MAX)
    task: Line = Field(max_length=TASK_MAX)
    description: ParagraphsOrEmpty = Field(default="", max_length=DESCRIPTION_MAX)
    shared: bool = False


class VersionRecall(Schema):
    """The reason, and the digest of the confirmed list."""

    reason: Paragraphs = Field(max_length=REASON_MAX)
    confirm: Line = Field(max_length=64)
