"""Input of the services for API keys."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from django.utils import timezone
from pydantic import AfterValidator, Field, ValidationInfo

from governance.bounds import DEPARTMENT_MAX, NAME_MAX, TITLE_MAX
from governance.keys.checks import DEPLOYMENTS_MAX, MAX_LIFETIME, MAX_OVERLAP, NETWORKS_MAX
from governance.keys.leaks import TEXT_MAX
from governance.keys.models import PURPOSE_MAX
from governance.permissions import Action
from governance.quotas.kinds import KINDS
from governance.quotas.services import LIMIT_MAX
from governance.schemas import Choice, Id, Line, LineOrEmpty, Moment, Schema, Slug

KeyName = Annotated[Line, Field(max_length=TITLE_MAX)]
DeploymentName = Annotated[Line, Field(max_length=NAME_MAX)]
Network = Annotated[Line, Field(max_length=43)]


class KeyDetails(Schema):
    """Restrictions of a key, and its owner (a person's ID)."""

    owner: Id | None = None
    purpose: LineOrEmpty | None = Field(default=None, max_length=PURPOSE_MAX)
    allowed_deployments: list[DeploymentName] | None = Field(
        default=None, max_length=DEPLOYMENTS_MAX
    )
    networks: list[Network] | None = Field(default=None, max_length=NETWORKS_MAX)


class KeyChange(KeyDetails):
    """Fields to change; others keep their value."""

    name: KeyName | None = None


def _alone(days: int | None, info: ValidationInfo) -> int | None:
    if days and info.data.get("expires_at"):
        raise ValueError("give either expires_at or expires_in_days")
    return days


class KeyEnd(Schema):
    """Expiry of a new key, as a moment or in days."""

    expires_at: Moment | None = None
    expires_in_days: Annotated[int | None, AfterValidator(_alone)] = Field(
        default=None, ge=1, le=MAX_LIFETIME.days
    )

    @property
    def end(self) -> datetime | None:
        days = self.expires_in_days
        return self.expires_at if days is None else timezone.now() + timedelta(days=days)


class NewKey(KeyDetails, KeyEnd):
    """A new key of a department. `quotas` maps a kind of quota to its limit; `networks` are CIDRs.
    Empty `allowed_deployments` and `networks` mean any.
    """

    department: Slug = Field(max_length=DEPARTMENT_MAX)
    name: KeyName
    scopes: list[Choice[Action]] = Field(
        default=[Action.DEPLOYMENT_INVOKE, Action.DEPLOYMENT_VIEW],
        min_length=1,
        max_length=len(Action),
    )
    quotas: dict[str, Annotated[int, Field(ge=0, le=LIMIT_MAX)]] = Field(
        default={}, max_length=len(KINDS)
    )


class KeyRotation(KeyEnd):
    """Hours for which both secrets work, and the new secret's expiry; by default it has the old
    secret's lifetime.
    """

    overlap_hours: int | None = Field(default=None, ge=0, le=MAX_OVERLAP.days * 24)


class LeakedKey(Schema):
    """The whole text of a leaked key."""

    token: Line = Field(max_length=TEXT_MAX)
