"""Readiness of a version for release."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Line, StrictSerializer
from assay.api.representations.readiness import ReadinessAnswer
from governance.bounds import TIER_MAX
from registry.releases.readiness import version_readiness
from registry.versions.selectors import version_get


class ReadinessQuery(StrictSerializer):
    """Without a tier, the lowest one that the training data allows."""

    tier = Line(max_length=TIER_MAX, required=False)


class ReadinessView(Endpoint):
    """The needs of a release of one version."""

    @operation(
        "Models",
        "What a release of this version needs, and what is missing now",
        query=ReadinessQuery,
        answer=ReadinessAnswer,
    )
    def get(self, request: Request, version_id: int) -> Response:
        given = self.query(ReadinessQuery)
        version = version_get(actor=self.actor, id=version_id)
        found = version_readiness(actor=self.actor, version=version, **given)
        return self.answer(found, ReadinessAnswer)
