"""Input about models and versions."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from governance.bounds import DEPARTMENT_MAX, TASK_MAX
from governance.schemas import Column, Filter, Line


class ModelFilter(Filter):
    """Filters of the list."""

    department: Annotated[Line | None, Column("department__slug")] = Field(
        default=None, max_length=DEPARTMENT_MAX
    )
    task: Line | None = Field(default=None, max_length=TASK_MAX)
