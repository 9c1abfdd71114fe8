"""Filters of the ledger."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from governance.bounds import DEPARTMENT_MAX, NAME_MAX
from governance.schemas import Filter, Line, Moment
from governance.usage.selectors import MAX_DAYS


class UsageFilter(Filter):
    """Filters of the list; `since` is inclusive, `until` exclusive."""

    department: Line | None = Field(default=None, max_length=DEPARTMENT_MAX)
    deployment: Line | None = Field(default=None, max_length=NAME_MAX)
    key: Line | None = Field(default=None, max_length=16, serialization_alias="key_public_id")
    since: Moment | None = Field(default=None, serialization_alias="occurred_at__gte")
    until: Moment | None = Field(default=None, serialization_alias="occurred_at__lt")


class UsageDaysFilter(Filter):
    """Number of days, including today, and the grouping of the sums."""

    days: int = Field(default=30, ge=1, le=MAX_DAYS)
    by: Literal["department", "deployment", "key"] | None = None
