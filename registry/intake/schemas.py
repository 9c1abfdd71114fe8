"""Input schemas of intakes."""

from __future__ import annotations

from pydantic import Field

from governance.bounds import NAME_MAX
from governance.schemas import Filter, Line, Object, Paragraphs, Schema, Slug
from registry.intake.models import REASON_MAX, IntakeState


class IntakeFilter(Filter):
    """Filters of the list of intakes."""

    state: IntakeState | None = None
    model: Line | None = Field(default=None, max_length=NAME_MAX, serialization_alias="model__name")


class NewHosted(Schema):
    """A hosted model as a version of `model`. `description` has the fields of a `hosted.json`:
    `provider`, `shape`, `base_url`, `model`, `region`, `credential` (its name), `parameters`,
    `context_tokens`, `max_tokens`, `terms`, `prices`, `shutdown_on` and others."""

    model: Slug = Field(max_length=NAME_MAX)
    description: Object
    digest: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="Reject the description unless it becomes a version with this digest.",
    )


class IntakeSignOff(Schema):
    """The second person's decision, and the reason."""

    accept: bool
    reason: Paragraphs = Field(max_length=REASON_MAX)
