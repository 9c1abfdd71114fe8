"""Schemas of a deployment's targets and their conditions."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from governance.bounds import DEPARTMENT_MAX
from governance.faults import broken_rule
from governance.schemas import Choice, Id, Line, Schema, Slug
from workers.deployments.models import TargetRole
from workers.deployments.schemas import Replicas

TARGETS_MAX = 8
REASON_MAX = 500
_PROMPT_MAX = 100_000_000
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Time = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
Modality = Literal["text", "image", "audio", "video"]


class RoutingConditions(Schema):
    """Conditions of a target. A request must meet all that are set."""

    departments: list[Annotated[Slug, Field(max_length=DEPARTMENT_MAX)]] = Field(
        default=[], max_length=100, description="Departments of the caller's key."
    )
    endpoints: list[Annotated[Line, Field(max_length=60)]] = Field(
        default=[], max_length=20, description="Paths, such as /v1/chat/completions."
    )
    prompt_tokens_min: int | None = Field(
        default=None, ge=1, le=_PROMPT_MAX, description="Smallest estimate of the prompt's tokens."
    )
    prompt_tokens_max: int | None = Field(
        default=None, ge=1, le=_PROMPT_MAX, description="Largest estimate of the prompt's tokens."
    )
    modalities: list[Modality] = Field(
        default=[],
        max_length=4,
        description="Kinds of input: a request with an image is of the kind image, not text.",
    )
    days: list[Day] = Field(default=[], max_length=7, description="Days of the week, in UTC.")
    time_from: Time | None = Field(default=None, description="Time of day (UTC), such as 08:00.")
    time_until: Time | None = Field(
        default=None, description="End (UTC), not included; before the start: the next day."
    )

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        least, most = self.prompt_tokens_min, self.prompt_tokens_max
        if least is not None and most is not None and least > most:
            raise broken_rule("prompt_tokens_max is smaller than prompt_tokens_min")
        if (self.time_from is None) != (self.time_until is None):
            raise broken_rule("give both time_from and time_until, or neither")
        if self.time_from is not None and self.time_from == self.time_until:
            raise broken_rule("time_from and time_until are the same")
        return self

    def to_json(self) -> dict[str, object]:
        """Return the form of the column: only the conditions that are set."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def words(self) -> list[str]:
        """Return each condition as a phrase."""
        phrases = []
        if self.departments:
            phrases.append(f"from {', '.join(sorted(self.departments))}")
        if self.endpoints:
            phrases.append(f"to {', '.join(self.endpoints)}")
        if self.prompt_tokens_min is not None:
            phrases.append(f"prompts of {self.prompt_tokens_min:,} tokens or more")
        if self.prompt_tokens_max is not None:
            phrases.append(f"prompts of up to {self.prompt_tokens_max:,} tokens")
        if self.modalities:
            phrases.append(f"with {', '.join(self.modalities)}")
        if self.days:
            phrases.append(f"on {', '.join(self.days)}")
        if self.time_from is not None:
            phrases.append(f"from {self.time_from} to {self.time_until} UTC")
        return phrases


class Target(Schema):
    """One target. A share (`weight`, in percent) belongs to the roles serve, canary and shadow."""

    release: Id
    role: Annotated[Choice[TargetRole], Field(description="serve, canary, fallback or shadow.")]
    weight: int = Field(default=0, ge=0, le=100)
    # By a factory: generated clients take no object as a default.
    conditions: RoutingConditions = Field(default_factory=RoutingConditions)
    replicas: Replicas | None = Field(
        default=None, description="Replicas of a new target; one by default."
    )

    @model_validator(mode="after")
    def _share(self) -> Self:
        if self.role == TargetRole.PRIMARY:
            raise broken_rule("a target is serve, canary, fallback or shadow")
        if self.role == TargetRole.FALLBACK and self.weight:
            raise broken_rule("a fallback has no weight; fallbacks follow the order of the list")
        if self.role == TargetRole.SHADOW and not self.weight:
            raise broken_rule("a shadow needs a weight of 1 to 100, the percentage that is copied")
        return self


class TargetsChange(Schema):
    """All targets of a deployment, fallbacks in their order. Targets that are not in the list
    stop."""

    targets: list[Target] = Field(max_length=TARGETS_MAX)
    revision: int = Field(
        ge=0, description="The deployment's `targets_revision` that this change is based on."
    )
    reason: Line = Field(max_length=REASON_MAX)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        releases = [target.release for target in self.targets]
        if len(set(releases)) < len(releases):
            raise broken_rule("a release is in the list twice")
        shares = [
            target.weight
            for target in self.targets
            if target.role in (TargetRole.SERVE, TargetRole.CANARY)
            and not target.conditions.to_json()
        ]
        if sum(shares) > 100:
            raise broken_rule("the weights of targets without conditions add up to more than 100")
        if sum(target.role == TargetRole.CANARY for target in self.targets) > 1:
            raise broken_rule("a deployment has one canary at a time")
        return self


class TargetsSwitch(Schema):
    """The target that takes the place of the primary, and the reason."""

    target: Id
    revision: int = Field(
        ge=0, description="The deployment's `targets_revision` that this change is based on."
    )
    reason: Line = Field(max_length=REASON_MAX)
