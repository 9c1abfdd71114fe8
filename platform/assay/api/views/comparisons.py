"""Compare a release with what serves under its name, and one version with another."""

from __future__ import annotations

from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import StrictSerializer
from assay.api.representations.comparisons import ComparisonAnswer, VersionComparisonAnswer
from registry.releases.comparison.build import version_compare
from registry.releases.selectors import release_get
from registry.versions.selectors import version_get
from workers.deployments.comparison import release_compare_live


class ComparisonView(Endpoint):
    """Compare a release with the live one."""

    @operation(
        "Releases",
        "Compare a release with what serves under its name now: numbers with their intervals, "
        "data, settings, card, answers, files, and affected departments",
        answer=ComparisonAnswer,
    )
    def get(self, request: Request, release_id: int) -> Response:
        self.query()
        release = release_get(actor=self.actor, id=release_id)
        return self.answer(
            release_compare_live(actor=self.actor, release=release), ComparisonAnswer
        )


class AgainstQuery(StrictSerializer):
    """The version to compare with, of the same task."""

    against = serializers.IntegerField(min_value=1, max_value=2**63 - 1)


class VersionComparisonView(Endpoint):
    """Compare a version with another."""

    @operation(
        "Models",
        "Compare two versions: numbers with their intervals, data, settings, card and files",
        query=AgainstQuery,
        answer=VersionComparisonAnswer,
    )
    def get(self, request: Request, version_id: int) -> Response:
        # First: those who may not see the version hear nothing about parameters.
        version = version_get(actor=self.actor, id=version_id)
        given = self.query(AgainstQuery)
        other = version_get(actor=self.actor, id=given["against"])
        comparison = version_compare(actor=self.actor, version=version, other=other)
        found = {"version": version, "replaced": other, "comparison": comparison}
        return self.answer(found, VersionComparisonAnswer)
