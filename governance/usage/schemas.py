"""Filters of the ledger."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from governance.bounds import DEPARTMENT_MAX, NAME_MAX
from governance.schemas import Column, Filter, Line, Moment
from governance.usage.selectors import MAX_DAYS


class UsageFilter(Filter):
    """Filters of the list; `since` is inclusive, `until` exclusive."""

    department: Line | None = Field(default=None, max_length=DEPARTMENT_MAX)
    deployment: Line | None = Field(default=None, max_length=NAME_MAX)
    key: Annotated[Line | None, Column("key_public_id")] = Field(default=None, max_length=16)
    since: Annotated[Moment | None, Column("occurred_at__gte")] = None
    until: Annotated[Moment | None, Column("occurred_at__lt")] = None


class UsageDaysFilter(Filter):
    """Number of days, including today, and the grouping of the sums."""

    days: int = Field(default=30, ge=1, le=MAX_DAYS)
    by: Literal["department", "deployment", "key"] | None = None
