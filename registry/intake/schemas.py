"""Input schemas of intakes."""

from __future__ import annotations

from pydantic import Field

from governance.bounds import NAME_MAX
from governance.schemas import Filter, Line, Paragraphs, Schema
from registry.intake.models import REASON_MAX, IntakeState


class IntakeFilter(Filter):
    """Filters of the list of intakes."""

    state: IntakeState | None = None
    model: Line | None = Field(default=None, max_length=NAME_MAX, serialization_alias="model__name")


class IntakeSignOff(Schema):
    """The second person's decision, and the reason."""

    accept: bool
    reason: Paragraphs = Field(max_length=REASON_MAX)
