"""Input of the services of retention."""

from __future__ import annotations

from pydantic import Field

from governance.retention.models import LEAST_MONTHS, MOST_MONTHS
from governance.schemas import Schema


class TableRetentionMonths(Schema):
    """Whole months for which a table is kept; null keeps it forever."""

    months: int | None = Field(ge=LEAST_MONTHS, le=MOST_MONTHS)
