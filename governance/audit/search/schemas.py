"""Input of the services for events: filters of a list, and saved filters."""

from __future__ import annotations

from typing import Annotated, Any

from django.utils import timezone
from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema

from governance.audit.search.filters import TEXT_MAX, ActorKind, EventFilter
from governance.audit.search.parameters import WITHIN, Outcome, Span
from governance.audit.search.saved_filters import NAME_MAX
from governance.bounds import DEPARTMENT_MAX, REQUEST_ID_MAX
from governance.faults import broken_rule
from governance.schemas import Line, Moment, Schema, json_schema

MAX_POLICY_VERSION = 2**31 - 1
FilterName = Annotated[Line, Field(max_length=NAME_MAX)]
FilterText = Annotated[Line, Field(max_length=TEXT_MAX)]


class AuditEventQuery(Schema):
    """Filters of events, all of which must match."""

    model_config = ConfigDict(strict=False)

    action: Line | None = Field(
        default=None,
        max_length=60,
        description="An action; `release:` matches all actions on releases.",
    )
    actor_kind: ActorKind | None = None
    actor_id: Line | None = Field(default=None, max_length=64)
    who: FilterText | None = Field(
        default=None,
        description="A person's email address or name, words of the name of a key or service, or "
        "`key:7`.",
    )
    subject_type: Line | None = Field(default=None, max_length=40)
    subject_id: Line | None = Field(default=None, max_length=80)
    subject: FilterText | None = Field(
        default=None, description="Words of an object's name, or `release:7`."
    )
    outcome: Outcome | None = None
    department: Line | None = Field(default=None, max_length=DEPARTMENT_MAX)
    request_id: Line | None = Field(default=None, max_length=REQUEST_ID_MAX)
    policy_version: int | None = Field(default=None, ge=0, le=MAX_POLICY_VERSION)
    since: Moment | None = Field(default=None, description="Not before this moment.")
    until: Moment | None = Field(default=None, description="Before this moment.")
    query: FilterText | None = Field(
        default=None,
        description="Any of: a text for `who` or `subject`, a request's ID, an action. Names match "
        "by words and their beginnings; reasons are not searched.",
    )


def _alone(value: Span | None, info: ValidationInfo) -> Span | None:
    if value and (info.data.get("since") or info.data.get("until")):
        raise broken_rule("give either this or `since` and `until`")
    return value


class AuditEventsQuery(AuditEventQuery):
    """Filters of events, with a time span that ends now."""

    within: Annotated[Span | None, AfterValidator(_alone)] = None

    def filter(self) -> EventFilter:
        """Return the filter; a time span ends now."""
        values = self.model_dump(exclude={"within"})
        if self.within is not None:
            values["since"] = timezone.now() - WITHIN[self.within]
        return EventFilter(**values)


def _as_texts() -> dict[str, Any]:
    """Return the JSON schema of an object with the query's parameters, each as text."""
    properties = json_schema(AuditEventsQuery)["properties"]
    properties["policy_version"] |= {"type": "string", "pattern": "^[0-9]{1,9}$"}
    for bound in ("minimum", "maximum"):
        del properties["policy_version"][bound]
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "minProperties": 1,
    }


Parameters = Annotated[
    dict[str, FilterText], Field(min_length=1, max_length=20), WithJsonSchema(_as_texts())
]


class NewAuditFilter(Schema):
    """A name, and parameters of `GET /api/v1/audit/events`; `shared` shows the filter to all
    readers of the whole log."""

    name: FilterName
    parameters: Parameters
    shared: bool = False


class AuditFilterChange(Schema):
    """Fields to change; the others stay."""

    name: FilterName | None = None
    parameters: Parameters | None = None
    shared: bool | None = None
