"""Input schemas of datasets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from governance.bounds import DEPARTMENT_MAX, DESCRIPTION_MAX, NAME_MAX, TASK_MAX
from governance.schemas import Choice, Filter, Line, LineOrEmpty, ParagraphsOrEmpty, Schema, Slug
from registry.datasets.models import LICENSE_MAX, Classification
from registry.datasets.parsing import MAX_ROWS

SEARCH_MAX = 200
COLUMN_MAX = 200


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


class RowsQuery(Filter):
    """A page of the rows that contain `q`, sorted by the column or feature `sort`, from position
    `row` on."""

    q: LineOrEmpty = Field(default="", max_length=SEARCH_MAX)
    sort: LineOrEmpty = Field(default="", max_length=COLUMN_MAX)
    order: Literal["asc", "desc"] = "asc"
    row: int = Field(default=1, ge=1, le=MAX_ROWS)
