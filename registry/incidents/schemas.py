"""Input about incidents."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from governance.schemas import Choice, Filter, Id, Line, Moment, Paragraphs, Schema
from registry.incidents.models import (
    HAPPENED_MAX,
    REASON_MAX,
    TEXT_MAX,
    TITLE_MAX,
    VERSIONS_MAX,
    IncidentState,
    Serious,
    Severity,
)

Note = Annotated[Paragraphs, Field(max_length=TEXT_MAX)]


class IncidentFilter(Filter):
    """Filters of the list."""

    state: IncidentState | None = None
    severity: Severity | None = None


class NewIncident(Schema):
    """Description, severity and versions of an incident."""

    title: Line = Field(max_length=TITLE_MAX)
    happened: Paragraphs = Field(max_length=HAPPENED_MAX)
    severity: Choice[Severity]
    serious: Choice[Serious] = Serious.NO
    versions: list[Id] = Field(min_length=1, max_length=VERSIONS_MAX)
    aware_at: Moment | None = None


class IncidentNoteText(Schema):
    """A line of the timeline."""

    text: Note


class IncidentChange(Schema):
    """New state, and the reason."""

    state: Choice[IncidentState]
    text: Note


class IncidentRating(Schema):
    """New severity, and the reason."""

    severity: Choice[Severity]
    serious: Choice[Serious]
    text: Note


class IncidentVersionText(Schema):
    """A further version, and the reason."""

    version: Id
    text: Note


class IncidentLifting(Schema):
    """Reason for lifting the suspensions of an incident."""

    reason: Paragraphs = Field(max_length=REASON_MAX)
