"""Input schemas for deployments."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from governance.bounds import DEPARTMENT_MAX, NAME_MAX
from governance.schemas import Choice, Filter, Id, Line, Schema, Slug
from governance.usage.performance import Span
from workers.deployments.models import (
    QUEUE_AGE_MAX_S,
    QUEUE_AGE_S,
    QUEUE_WEIGHT_MAX,
    QUEUE_WEIGHTS_MAX,
    REPLICAS_MAX,
    STREAM_IDLE_MAX,
    STREAM_TOTAL_MAX,
    DeploymentState,
    Device,
)
from workers.deployments.rollback import REASON_MAX
from workers.placement.settings import LABEL_MAX, LABELS_MAX, ReplicaSettings


class DeploymentFilter(Filter):
    """Filters of the list of deployments."""

    name: Line | None = Field(default=None, max_length=NAME_MAX)
    state: DeploymentState | None = None


class HealthFilter(Filter):
    """The time until now that is shown."""

    span: Span = Field(
        default=Span.DAY,
        description="1h in steps of 2 minutes, 24h of an hour, 7d of 6 hours, 30d of a day, 12w of "
        "a week; the last step is the current one.",
    )


class Replicas(Schema):
    """Number of replicas, the workers that may hold them, limits of streams, and queue weights."""

    replicas_min: int = Field(ge=0, le=REPLICAS_MAX)
    replicas_max: int = Field(ge=1, le=REPLICAS_MAX)
    queue_age_s: int = Field(
        default=QUEUE_AGE_S,
        ge=1,
        le=QUEUE_AGE_MAX_S,
        description="Seconds that a request may wait before replicas are added.",
    )
    labels: list[Annotated[Line, Field(max_length=LABEL_MAX)]] = Field(
        default=[], max_length=LABELS_MAX
    )
    # Empty: any device.
    device: Annotated[Choice[Device] | None, BeforeValidator(lambda value: value or None)] = None
    stream_total_s: int | None = Field(
        default=None,
        ge=1,
        le=STREAM_TOTAL_MAX,
        description="Longest streamed answer, in seconds. Empty: ASSAY_GATEWAY_REQUEST_TIMEOUT_S.",
    )
    stream_idle_s: int | None = Field(
        default=None,
        ge=1,
        le=STREAM_IDLE_MAX,
        description="Longest pause between two tokens of a stream, in seconds. Empty: "
        "ASSAY_GATEWAY_REQUEST_TIMEOUT_S.",
    )
    queue_weights: dict[
        Annotated[Slug, Field(max_length=DEPARTMENT_MAX)],
        Annotated[int, Field(ge=1, le=QUEUE_WEIGHT_MAX)],
    ] = Field(
        default_factory=dict,
        max_length=QUEUE_WEIGHTS_MAX,
        description="Weights of departments whose requests wait, by name; 1 for others.",
    )

    def settings(self) -> ReplicaSettings:
        """Return the settings. Raises InvalidInput if they contradict each other."""
        return ReplicaSettings(**{**dict(self), "device": self.device or ""})


class NewDeployment(Schema):
    """The release to deploy, and its replicas; by default those of the replaced deployment."""

    release: Id
    replicas: Replicas | None = None


class DeploymentStop(Schema):
    """The reason for a stop."""

    reason: Line = Field(max_length=500)


class DeploymentRollback(Schema):
    """The release to go back to, and the reason."""

    release: Id
    reason: Line = Field(max_length=REASON_MAX)
