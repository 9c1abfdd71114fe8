"""Input about evaluations and the gates that they must pass."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from governance.bounds import NAME_MAX
from governance.schemas import Choice, Column, Filter, Id, Line, LineOrEmpty, Number, Schema, Slug
from registry.evaluations.models import WHY_MAX, Comparator


class GateFilter(Filter):
    """Filters of the list."""

    model: Annotated[Line | None, Column("model__name")] = Field(default=None, max_length=NAME_MAX)


class NewGate(Schema):
    """A threshold; setting it again changes it for evaluations that start afterward."""

    model: Slug = Field(max_length=NAME_MAX)
    dataset: Slug = Field(max_length=NAME_MAX)
    metric: Line = Field(max_length=60)
    comparator: Choice[Comparator]
    threshold: Number
    why: LineOrEmpty = Field(default="", max_length=WHY_MAX)


class EvaluationFilter(Filter):
    """Filters of the list."""

    version: Annotated[Id | None, Column("version_id")] = None
    model: Annotated[Line | None, Column("version__model__name")] = Field(
        default=None, max_length=NAME_MAX
    )
