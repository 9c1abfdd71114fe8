"""Input about emergency access."""

from __future__ import annotations

from pydantic import Field

from governance.schemas import Choice, Filter, Paragraphs, Schema
from registry.releases.emergency_access.models import (
    HOURS_MAX,
    LESSONS_MAX,
    REASON_MAX,
    AfterVerdict,
    EmergencyAccessState,
)


class EmergencyAccessFilter(Filter):
    """Filters of the list."""

    state: EmergencyAccessState | None = None


class EmergencyAccessReason(Schema):
    """The reason."""

    reason: Paragraphs = Field(max_length=REASON_MAX)


class NewEmergencyAccess(EmergencyAccessReason):
    """The reason that it cannot wait for the review, and the number of hours."""

    hours: int = Field(ge=1, le=HOURS_MAX)


class AfterReview(Schema):
    """Verdict of the review, and the follow-up."""

    verdict: Choice[AfterVerdict]
    lessons: Paragraphs = Field(max_length=LESSONS_MAX)
