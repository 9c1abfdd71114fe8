"""Input about feedback."""

from __future__ import annotations

from pydantic import Field

from governance.bounds import NAME_MAX
from governance.schemas import Filter, Line
from registry.feedback.models import FeedbackState


class FeedbackFilter(Filter):
    """Filters of the list."""

    state: FeedbackState | None = None
    deployment: Line | None = Field(default=None, max_length=NAME_MAX)
