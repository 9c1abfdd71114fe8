"""Input of the services of the request log, and filters of its list."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, FieldSerializationInfo, field_serializer

from governance.bounds import DEPARTMENT_MAX, NAME_MAX
from governance.people.models import REASON_MAX
from governance.request_log.models import DAILY_MIB_MAX, DAYS_MAX, LogMode
from governance.schemas import Choice, Filter, Line, Moment, Schema

USER_MAX = 512
_MS_MAX, _MICRO_MAX = 2**31 - 1, 2**53

Reason = Annotated[Line, Field(max_length=REASON_MAX)]
Outcome = Literal["ok", "failed", "canceled"]


class RequestLogSettings(Schema):
    """Logging of a department's requests. Content is kept for `days`; at most `daily_mib` are
    logged a day. With `second_factor`, reading content takes a fresh one. With `datasets`, content
    may become rows of datasets."""

    mode: Choice[LogMode]
    days: int = Field(default=30, ge=1, le=DAYS_MAX)
    daily_mib: int = Field(default=1024, ge=1, le=DAILY_MIB_MAX)
    second_factor: bool = True
    datasets: bool = False


class ContentReason(Schema):
    """Reason for reading content; it is recorded in the audit log."""

    reason: Reason


class EndUser(Schema):
    """An end user, by the ID that applications sent as `user` or in `metadata`."""

    user: Annotated[str, Field(min_length=1, max_length=USER_MAX)]
    reason: Reason


class RequestFilter(Filter):
    """Filters of the request log. `since` is inclusive, `until` exclusive. `user`, the ID of an end
    user, finds only requests whose content was logged. `fallback` finds requests that went to
    another target after a failure, or those that did not. Durations are in milliseconds, costs in
    micro-units of the currency."""

    department: Line | None = Field(default=None, max_length=DEPARTMENT_MAX)
    deployment: Line | None = Field(default=None, max_length=NAME_MAX)
    release: int | None = Field(default=None, ge=1, le=_MS_MAX)
    key: Line | None = Field(default=None, max_length=16, serialization_alias="key_public_id")
    user: str | None = Field(default=None, min_length=1, max_length=USER_MAX, exclude=True)
    outcome: Outcome | None = None
    endpoint: Line | None = Field(default=None, max_length=60)
    streamed: bool | None = None
    fallback: bool | None = Field(default=None, serialization_alias="retry_ms__isnull")
    slower_ms: int | None = Field(
        default=None, ge=0, le=_MS_MAX, serialization_alias="total_ms__gte"
    )
    faster_ms: int | None = Field(
        default=None, ge=0, le=_MS_MAX, serialization_alias="total_ms__lt"
    )
    cost_from: int | None = Field(
        default=None, ge=0, le=_MICRO_MAX, serialization_alias="cost_micro__gte"
    )
    since: Moment | None = Field(default=None, serialization_alias="occurred_at__gte")
    until: Moment | None = Field(default=None, serialization_alias="occurred_at__lt")

    @field_serializer("fallback")
    def _as_condition(self, fallback: bool | None, info: FieldSerializationInfo) -> bool | None:
        """Return the value of the condition that the alias names, which is the opposite."""
        return fallback if fallback is None or not info.by_alias else not fallback


class RequestExport(Schema):
    """Requests of a department to export as JSON Lines, the newest first: at most `limit`, with
    their content if `content` is true."""

    department: Annotated[Line, Field(max_length=DEPARTMENT_MAX)]
    reason: Reason
    filters: RequestFilter = Field(default_factory=RequestFilter)
    content: bool = False
    limit: int = Field(default=1_000, ge=1, le=10_000)
