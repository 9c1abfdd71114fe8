"""Input about evaluations and the gates that they must pass."""

from __future__ import annotations

from pydantic import Field

from governance.bounds import NAME_MAX
from governance.schemas import Choice, Filter, Id, Line, LineOrEmpty, Schema, Slug
from registry.evaluations.models import WHY_MAX, Comparator


class GateFilter(Filter):
    """Filters of the list."""

    model: Line | None = Field(default=None, max_length=NAME_MAX, serialization_alias="model__name")


class NewGate(Schema):
    """A threshold; setting it again changes it for evaluations that start afterward."""

    model: Slug = Field(max_length=NAME_MAX)
    dataset: Slug = Field(max_length=NAME_MAX)
    metric: Line = Field(max_length=60)
    comparator: Choice[Comparator]
    threshold: float
    why: LineOrEmpty = Field(default="", max_length=WHY_MAX)


class EvaluationFilter(Filter):
    """Filters of the list."""

    version: Id | None = Field(default=None, serialization_alias="version_id")
    model: Line | None = Field(
        default=None, max_length=NAME_MAX, serialization_alias="version__model__name"
    )
