"""What a release changes, beside what serves under its name now."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.representations.comparisons import ComparisonAnswer
from registry.releases.selectors import release_get
from workers.deployments.comparison import release_beside_live


class ComparisonView(Endpoint):
    """A release beside the live one."""

    @operation(
        "Releases",
        "What a release changes: numbers with their intervals, data, settings, card, answers, "
        "files, and whom it reaches, beside what serves under its name now",
        answer=ComparisonAnswer,
    )
    def get(self, request: Request, release_id: int) -> Response:
        self.query()
        release = release_get(actor=self.actor, id=release_id)
        return self.answer(release_beside_live(actor=self.actor, release=release), ComparisonAnswer)
