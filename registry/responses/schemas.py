"""Input schemas of stored responses."""

from __future__ import annotations

from pydantic import Field

from governance.schemas import Schema
from registry.responses.models import RETENTION_MAX_DAYS


class ResponseRetentionDays(Schema):
    """Days for which responses are kept; 0 deletes all of them and stores no more."""

    days: int = Field(ge=0, le=RETENTION_MAX_DAYS)
