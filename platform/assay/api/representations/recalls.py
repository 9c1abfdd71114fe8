"""Effect of a recall, before and after."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from assay.api.representations.common import slug
from assay.api.representations.registry import VersionReference


class ReachedVersionAnswer(VersionReference):
    """One version that a recall affects."""

    kind = serializers.CharField()
    state = serializers.CharField()
    department = slug("model.department.slug")


class ReachedReleaseAnswer(serializers.Serializer[Any]):
    """One release that a recall affects; releases that have already ended do not change."""

    id = serializers.IntegerField()
    state = serializers.CharField()
    version = VersionReference()
    deployment_name = serializers.CharField()
    department = slug()
    departments = serializers.SerializerMethodField()

    def get_departments(self, release: Any) -> list[str]:
        return [department.slug for department in release.departments.all()]


class ReachedDeploymentAnswer(serializers.Serializer[Any]):
    """One live deployment that a recall stops."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    state = serializers.CharField()
    release = serializers.IntegerField(source="release_id")
    department = slug()


class TrafficAnswer(serializers.Serializer[Any]):
    """Requests of one department to these versions in the last 30 days."""

    department = serializers.CharField()
    requests = serializers.IntegerField()
    tokens = serializers.IntegerField()
    last_at = serializers.DateTimeField()


class RecallRadiusAnswer(serializers.Serializer[Any]):
    """Everything that a recall would affect. `digest` confirms exactly this list. The totals
    include entries that the lists omit: beyond 200, or hidden from the caller."""

    digest = serializers.CharField(source="below.digest")
    version = VersionReference(source="below.version")
    versions = ReachedVersionAnswer(many=True, source="below.versions")
    versions_total = serializers.IntegerField(source="below.versions_total")
    releases = ReachedReleaseAnswer(many=True, source="below.releases")
    releases_total = serializers.IntegerField(source="below.releases_total")
    deployments = ReachedDeploymentAnswer(many=True)
    deployments_total = serializers.IntegerField()
    traffic = TrafficAnswer(many=True)


class RecalledAnswer(serializers.Serializer[Any]):
    """Number of versions, releases and reviews that a recall has ended."""

    version = VersionReference()
    versions = serializers.IntegerField()
    releases = serializers.IntegerField()
    reviews = serializers.IntegerField()
