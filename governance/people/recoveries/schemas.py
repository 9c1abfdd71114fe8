"""Input about recoveries of accounts."""

from __future__ import annotations

from pydantic import Field

from governance.people.models import REASON_MAX, LinkPurpose
from governance.people.recoveries.models import RecoveryState
from governance.schemas import Choice, Filter, Line, Schema


class RecoveryFilter(Filter):
    """Filters of the list."""

    state: RecoveryState | None = None


class NewRecovery(Schema):
    """Purpose of the recovery's link, and the reason."""

    purpose: Choice[LinkPurpose] = LinkPurpose.PASSWORD
    reason: Line = Field(max_length=REASON_MAX)


class RecoveryRejection(Schema):
    """Reason for rejecting a recovery."""

    reason: Line = Field(max_length=REASON_MAX)
