"""Incidents, their timelines, and what they suspend."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from assay.api.representations.common import Link, PersonReference, slug
from assay.api.representations.recalls import ReachedReleaseAnswer, ReachedVersionAnswer
from assay.api.representations.registry import VersionReference


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
