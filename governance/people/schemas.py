"""Input about people, departments, and the roles that people hold."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from governance.bounds import DEPARTMENT_MAX
from governance.schemas import Filter, Line, Slug


class PeopleQuery(Filter):
    """Filters of the list; `q` is a part of the name or address."""

    q: Line | None = Field(default=None, max_length=100)
    state: Literal["active", "inactive"] | None = None
    department: Slug | None = Field(default=None, max_length=DEPARTMENT_MAX)
