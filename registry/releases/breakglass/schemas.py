"""Input about emergency access."""

from __future__ import annotations

from pydantic import Field

from governance.schemas import Choice, Filter, Paragraphs, Schema
from registry.releases.breakglass.models import (
    HOURS_MAX,
    LESSONS_MAX,
    REASON_MAX,
    AfterVerdict,
    BreakGlassState,
)


class BreakGlassFilter(Filter):
    """Filters of the list."""

    state: BreakGlassState | None = None


class BreakGlassReason(Schema):
    """The reason."""

    reason: Paragraphs = Field(max_length=REASON_MAX)


class NewBreakGlass(BreakGlassReason):
    """The reason that it cannot wait for the review, and the number of hours."""

    hours: int = Field(ge=1, le=HOURS_MAX)


class AfterReview(Schema):
    """Verdict of the review, and the follow-up."""

    verdict: Choice[AfterVerdict]
    lessons: Paragraphs = Field(max_length=LESSONS_MAX)
