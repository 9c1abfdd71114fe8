"""Incidents: reported, kept, and what they suspend lifted."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Choice, Identifier, Line, Moment, Paragraphs, Several, StrictSerializer
from assay.api.idempotency import idempotent
from assay.api.representations.common import Link, PersonReference, slug
from assay.api.representations.recalls import ReachedReleaseAnswer, ReachedVersionAnswer
from assay.api.representations.registry import VersionReference
from governance.principals import Principal
from registry.incidents.lifting import incident_lift
from registry.incidents.models import (
    HAPPENED_MAX,
    REASON_MAX,
    TEXT_MAX,
    TITLE_MAX,
    Incident,
    IncidentState,
    Serious,
    Severity,
)
from registry.incidents.selectors import (
    incident_get,
    incident_notes,
    incident_reaches,
    incident_suspensions,
    incidents_visible_to,
)
from registry.incidents.services import (
    VERSIONS_MAX,
    incident_add_version,
    incident_move,
    incident_note,
    incident_open,
    incident_rate,
)


class IncidentAnswer(serializers.Serializer[Any]):
    """An event that concerns some versions. `suspends`: no deployment that it reaches may serve
    now.
    """

    id = serializers.IntegerField()
    title = serializers.CharField()
    severity = serializers.CharField()
    serious = serializers.CharField(
        help_text="Of which kind in the sense of Art. 73 of the EU AI Act; empty when it is not."
    )
    state = serializers.CharField()
    suspends = serializers.BooleanField()
    department = slug()
    versions = serializers.SerializerMethodField()
    reporter = PersonReference()
    aware_at = serializers.DateTimeField()
    report_by = serializers.DateTimeField(
        allow_null=True, help_text="Until when a serious one is reported to the authority."
    )
    opened_at = serializers.DateTimeField()
    resolved_at = serializers.DateTimeField(allow_null=True)
    closed_at = serializers.DateTimeField(allow_null=True)
    url = Link("incidents/{0.id}")

    def get_versions(self, incident: Any) -> list[str]:
        return [str(link.version) for link in incident.links.all()]


class IncidentNoteAnswer(serializers.Serializer[Any]):
    """One line of the timeline; none is ever changed."""

    id = serializers.IntegerField()
    kind = serializers.CharField()
    detail = serializers.CharField()
    text = serializers.CharField()
    person = PersonReference()
    created_at = serializers.DateTimeField()


class IncidentSuspensionAnswer(serializers.Serializer[Any]):
    """From when to when it suspended, and who lifted that."""

    since = serializers.DateTimeField()
    lifted_at = serializers.DateTimeField(allow_null=True)
    lifted_by = PersonReference(allow_null=True)
    lift_reason = serializers.CharField()


class IncidentDetail(IncidentAnswer):
    """An incident in full. `reached` names 200 at most of what the caller may see, the totals count
    all."""

    happened = serializers.CharField()
    linked = VersionReference(many=True)
    notes = IncidentNoteAnswer(many=True, source="timeline")
    suspensions = IncidentSuspensionAnswer(many=True, source="suspended")
    versions_reached = ReachedVersionAnswer(many=True, source="reached.versions")
    versions_total = serializers.IntegerField(source="reached.versions_total")
    releases_reached = ReachedReleaseAnswer(many=True, source="reached.releases")
    releases_total = serializers.IntegerField(source="reached.releases_total")


class LiftedAnswer(serializers.Serializer[Any]):
    """Which releases are approved again, and which stay suspended: another incident suspends them,
    or their time is over."""

    incident = serializers.IntegerField(source="incident.id")
    approved = serializers.SerializerMethodField()
    suspended = serializers.SerializerMethodField()

    def get_approved(self, lifted: Any) -> list[int]:
        return [release.pk for release in lifted.approved]

    def get_suspended(self, lifted: Any) -> list[int]:
        return [release.pk for release in lifted.suspended]


def shown_incident(actor: Principal, incident_id: int) -> Incident:
    """Return the incident with the additional attributes that `IncidentDetail` shows `actor`."""
    incident = incident_get(actor=actor, id=incident_id)
    shown: Any = incident
    shown.timeline = incident_notes(incident)
    shown.suspended = incident_suspensions(incident)
    shown.reached = incident_reaches(actor, incident)
    shown.linked = [link.version for link in incident.links.all()]
    return incident


_SERIOUS = [choice for choice in Serious.choices if choice[0]]


class IncidentQuery(StrictSerializer):
    """Filters of the list."""

    state = Choice(choices=IncidentState.choices, required=False)
    severity = Choice(choices=Severity.choices, required=False)


class IncidentBody(StrictSerializer):
    """Description, severity and versions of an incident."""

    title = Line(max_length=TITLE_MAX)
    happened = Paragraphs(max_length=HAPPENED_MAX)
    severity = Choice(choices=Severity.choices)
    serious = Choice(choices=_SERIOUS, required=False, allow_blank=True)
    versions = Several(child=Identifier(), min_length=1, max_length=VERSIONS_MAX)
    aware_at = Moment(required=False)


class IncidentsView(Endpoint):
    """Incidents."""

    @operation(
        "Incidents", "List incidents", query=IncidentQuery, answer=IncidentAnswer, paged=True
    )
    def get(self, request: Request) -> Response:
        given = self.query(IncidentQuery)
        return self.page(incidents_visible_to(self.actor).filter(**given), IncidentAnswer)

    @operation(
        "Incidents",
        "Report an incident; a high or critical one suspends at once what it is about",
        body=IncidentBody,
        answer=IncidentDetail,
        status=201,
    )
    @idempotent
    def post(self, request: Request) -> Response:
        made = incident_open(actor=self.actor, **self.body(IncidentBody))
        return self.answer(shown_incident(self.actor, made.pk), IncidentDetail, status=201)


class IncidentView(Endpoint):
    """One incident."""

    @operation(
        "Incidents", "One incident: its timeline, and what it reaches", answer=IncidentDetail
    )
    def get(self, request: Request, incident_id: int) -> Response:
        self.query()
        return self.answer(shown_incident(self.actor, incident_id), IncidentDetail)


class IncidentNoteBody(StrictSerializer):
    """A line of the timeline."""

    text = Paragraphs(max_length=TEXT_MAX)


class IncidentNotesView(Endpoint):
    """An incident's timeline."""

    @operation(
        "Incidents",
        "Write a line of an incident's timeline",
        body=IncidentNoteBody,
        answer=IncidentDetail,
        status=201,
    )
    @idempotent
    def post(self, request: Request, incident_id: int) -> Response:
        incident_note(actor=self.actor, incident_id=incident_id, **self.body(IncidentNoteBody))
        return self.answer(shown_incident(self.actor, incident_id), IncidentDetail, status=201)


class IncidentStateBody(StrictSerializer):
    """New state, and the reason."""

    state = Choice(choices=IncidentState.choices)
    text = Paragraphs(max_length=TEXT_MAX)


class IncidentStateView(Endpoint):
    """State of an incident."""

    @operation(
        "Incidents",
        "Investigate, resolve, open again or close an incident; no way lifts what it suspends",
        body=IncidentStateBody,
        answer=IncidentDetail,
    )
    @idempotent
    def post(self, request: Request, incident_id: int) -> Response:
        incident_move(actor=self.actor, incident_id=incident_id, **self.body(IncidentStateBody))
        return self.answer(shown_incident(self.actor, incident_id), IncidentDetail)


class IncidentSeverityBody(StrictSerializer):
    """How bad it is, and why."""

    severity = Choice(choices=Severity.choices)
    serious = Choice(choices=_SERIOUS, allow_blank=True)
    text = Paragraphs(max_length=TEXT_MAX)


class IncidentSeverityView(Endpoint):
    """How bad an incident is."""

    @operation(
        "Incidents",
        "Rate an incident anew; high and critical suspend at once, lowering lifts nothing",
        body=IncidentSeverityBody,
        answer=IncidentDetail,
    )
    @idempotent
    def post(self, request: Request, incident_id: int) -> Response:
        incident_rate(actor=self.actor, incident_id=incident_id, **self.body(IncidentSeverityBody))
        return self.answer(shown_incident(self.actor, incident_id), IncidentDetail)


class IncidentVersionBody(StrictSerializer):
    """A further version, and why."""

    version = Identifier()
    text = Paragraphs(max_length=TEXT_MAX)


class IncidentVersionsView(Endpoint):
    """Versions of an incident."""

    @operation(
        "Incidents",
        "Add a version to an incident",
        body=IncidentVersionBody,
        answer=IncidentDetail,
        status=201,
    )
    @idempotent
    def post(self, request: Request, incident_id: int) -> Response:
        given = self.body(IncidentVersionBody)
        incident_add_version(
            actor=self.actor,
            incident_id=incident_id,
            version_id=given["version"],
            text=given["text"],
        )
        return self.answer(shown_incident(self.actor, incident_id), IncidentDetail, status=201)


class LiftBody(StrictSerializer):
    """Why what it suspends may serve again."""

    reason = Paragraphs(max_length=REASON_MAX)


class IncidentLiftView(Endpoint):
    """An incident's suspension."""

    @operation(
        "Incidents",
        "Lift what a resolved incident suspends, as a reviewer who had no part in it",
        body=LiftBody,
        answer=LiftedAnswer,
    )
    @idempotent
    def post(self, request: Request, incident_id: int) -> Response:
        lifted = incident_lift(actor=self.actor, incident_id=incident_id, **self.body(LiftBody))
        return self.answer(lifted, LiftedAnswer)
