"""Input about intakes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from governance.bounds import NAME_MAX
from governance.schemas import Column, Filter, Line
from registry.intake.models import IntakeState


class IntakeFilter(Filter):
    """Filters of the list."""

    state: IntakeState | None = None
    model: Annotated[Line | None, Column("model__name")] = Field(default=None, max_length=NAME_MAX)
