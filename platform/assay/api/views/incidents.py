"""Incidents: reporting, handling, and lifting of their suspensions."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers

from assay.api.representations.common import Link, PersonReference, slug
from assay.api.representations.recalls import ReachedReleaseAnswer, ReachedVersionAnswer
from assay.api.representations.registry import VersionReference
from assay.api.routes import Routes
from governance.principals import Principal
from registry.incidents.lifting import Lifted, incident_lift
from registry.incidents.models import Incident
from registry.incidents.schemas import (
    IncidentChange,
    IncidentFilter,
    IncidentLifting,
    IncidentNoteText,
    IncidentRating,
    IncidentVersionText,
    NewIncident,
)
from registry.incidents.selectors import (
    incident_get,
    incident_notes,
    incident_reaches,
    incident_suspensions,
    incidents_visible_to,
)
from registry.incidents.services import (
    incident_add_version,
    incident_move,
    incident_note,
    incident_open,
    incident_rate,
)


class IncidentAnswer(serializers.Serializer[Any]):
    """An incident that concerns some versions. `suspends`: deployments that it affects may not
    serve now.
    """

    id = serializers.IntegerField()
    title = serializers.CharField()
    severity = serializers.CharField()
    serious = serializers.CharField(
        help_text="Kind of serious incident under Art. 73 of the EU AI Act; empty if not serious."
    )
    state = serializers.CharField()
    suspends = serializers.BooleanField()
    department = slug()
    versions = serializers.SerializerMethodField()
    reporter = PersonReference(allow_null=True, help_text="Null if Assay opened it.")
    cause = serializers.CharField(
        help_text="`provider_differs` or `drift` if Assay opened it; else empty."
    )
    aware_at = serializers.DateTimeField()
    report_by = serializers.DateTimeField(
        allow_null=True, help_text="Deadline for reporting a serious incident to the authority."
    )
    opened_at = serializers.DateTimeField()
    resolved_at = serializers.DateTimeField(allow_null=True)
    closed_at = serializers.DateTimeField(allow_null=True)
    url = Link("incidents/{0.id}")

    def get_versions(self, incident: Any) -> list[str]:
        return [str(link.version) for link in incident.links.all()]


class IncidentNoteAnswer(serializers.Serializer[Any]):
    """One entry of the timeline, which never changes."""

    id = serializers.IntegerField()
    kind = serializers.CharField()
    detail = serializers.CharField()
    text = serializers.CharField()
    person = PersonReference(allow_null=True, help_text="Null if Assay wrote it.")
    created_at = serializers.DateTimeField()


class IncidentSuspensionAnswer(serializers.Serializer[Any]):
    """A suspension: its period, and the person who lifted it."""

    since = serializers.DateTimeField()
    lifted_at = serializers.DateTimeField(allow_null=True)
    lifted_by = PersonReference(allow_null=True)
    lift_reason = serializers.CharField()


class IncidentDetail(IncidentAnswer):
    """An incident with all details. Affected versions and releases are at most 200 that the caller
    may see; the totals count all."""

    happened = serializers.CharField()
    linked = VersionReference(many=True)
    notes = IncidentNoteAnswer(many=True, source="timeline")
    suspensions = IncidentSuspensionAnswer(many=True, source="suspended")
    versions_reached = ReachedVersionAnswer(many=True, source="reached.versions")
    versions_total = serializers.IntegerField(source="reached.versions_total")
    releases_reached = ReachedReleaseAnswer(many=True, source="reached.releases")
    releases_total = serializers.IntegerField(source="reached.releases_total")


class LiftedAnswer(serializers.Serializer[Any]):
    """Releases that are approved again, and releases that are not, because another incident
    suspends them or their approval has ended."""

    incident = serializers.IntegerField(source="incident.id")
    approved = serializers.SerializerMethodField()
    suspended = serializers.SerializerMethodField()

    def get_approved(self, lifted: Any) -> list[int]:
        return [release.pk for release in lifted.approved]

    def get_suspended(self, lifted: Any) -> list[int]:
        return [release.pk for release in lifted.suspended]


def incident_detail(actor: Principal, incident_id: int) -> Incident:
    """Return the incident with the additional attributes that `IncidentDetail` shows `actor`."""
    incident = incident_get(actor=actor, id=incident_id)
    detail: Any = incident
    detail.timeline = incident_notes(incident)
    detail.suspended = incident_suspensions(incident)
    detail.reached = incident_reaches(actor, incident)
    detail.linked = [link.version for link in incident.links.all()]
    return incident


routes = Routes("Incidents", IncidentDetail)


@routes.list("incidents", "List incidents", answer=IncidentAnswer)
def list_incidents(actor: Principal, query: IncidentFilter) -> QuerySet[Incident]:
    return query.applied(incidents_visible_to(actor))


@routes.create(
    "incidents", "Report an incident; a high or critical one suspends its versions at once"
)
def report(actor: Principal, body: NewIncident) -> Incident:
    incident = incident_open(actor=actor, **dict(body))
    return incident_detail(actor, incident.pk)


@routes.get("incidents/<id:incident_id>", "One incident: its timeline and affected versions")
def show(actor: Principal, incident_id: int) -> Incident:
    return incident_detail(actor, incident_id)


@routes.create("incidents/<id:incident_id>/notes", "Add a note to an incident's timeline")
def note(actor: Principal, incident_id: int, body: IncidentNoteText) -> Incident:
    incident_note(actor=actor, incident_id=incident_id, text=body.text)
    return incident_detail(actor, incident_id)


@routes.post(
    "incidents/<id:incident_id>/state",
    "Change an incident's status; this does not lift suspensions",
    repeatable=True,
)
def move(actor: Principal, incident_id: int, body: IncidentChange) -> Incident:
    incident_move(actor=actor, incident_id=incident_id, state=body.state, text=body.text)
    return incident_detail(actor, incident_id)


@routes.post(
    "incidents/<id:incident_id>/severity",
    "Change an incident's severity; high and critical suspend at once, lowering lifts nothing",
    repeatable=True,
)
def rate(actor: Principal, incident_id: int, body: IncidentRating) -> Incident:
    incident_rate(actor=actor, incident_id=incident_id, **dict(body))
    return incident_detail(actor, incident_id)


@routes.create("incidents/<id:incident_id>/versions", "Add a version to an incident")
def add_version(actor: Principal, incident_id: int, body: IncidentVersionText) -> Incident:
    incident_add_version(
        actor=actor, incident_id=incident_id, version_id=body.version, text=body.text
    )
    return incident_detail(actor, incident_id)


@routes.post(
    "incidents/<id:incident_id>/lift",
    "Lift the suspensions of a resolved incident, as a reviewer who had no part in it",
    answer=LiftedAnswer,
    repeatable=True,
)
def lift(actor: Principal, incident_id: int, body: IncidentLifting) -> Lifted:
    return incident_lift(actor=actor, incident_id=incident_id, reason=body.reason)
