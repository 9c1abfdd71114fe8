"""Input schemas of datasets."""

from __future__ import annotations

from pydantic import Field

from governance.bounds import DEPARTMENT_MAX, DESCRIPTION_MAX, NAME_MAX, TASK_MAX
from governance.schemas import Choice, Line, LineOrEmpty, ParagraphsOrEmpty, Schema, Slug
from registry.datasets.models import LICENSE_MAX, Classification


class NewDataset(Schema):
    """A new dataset: its owner, sensitivity and license. `row_kind` names one of the task's row
    kinds; it defaults to the task's own kind."""

    name: Slug = Field(max_length=NAME_MAX)
    department: Slug = Field(max_length=DEPARTMENT_MAX)
    task: Line = Field(max_length=TASK_MAX)
    classification: Choice[Classification]
    license: Line = Field(max_length=LICENSE_MAX)
    description: ParagraphsOrEmpty = Field(default="", max_length=DESCRIPTION_MAX)
    row_kind: LineOrEmpty = Field(default="", max_length=TASK_MAX)
