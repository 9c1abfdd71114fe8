"""Input schemas of intakes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from governance.bounds import NAME_MAX
from governance.schemas import Column, Filter, Line, Paragraphs, Schema
from registry.intake.models import REASON_MAX, IntakeState


class IntakeFilter(Filter):
    """Filters of the list of intakes."""

    state: IntakeState | None = None
    model: Annotated[Line | None, Column("model__name")] = Field(default=None, max_length=NAME_MAX)


class IntakeSignOff(Schema):
    """The second person's decision, and the reason."""

    accept: bool
    reason: Paragraphs = Field(max_length=REASON_MAX)
