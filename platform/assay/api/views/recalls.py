"""Recall of a version and everything below it: the list first, then the action."""

from __future__ import annotations

from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Line, Paragraphs, StrictSerializer
from assay.api.idempotency import idempotent
from assay.api.representations.recalls import RecalledAnswer, RecallRadiusAnswer
from registry.versions.models import REASON_MAX
from registry.versions.recall import version_recall
from workers.deployments.radius import blast_radius


class RecallBody(StrictSerializer):
    """Why, and the digest of the list that is confirmed."""

    reason = Paragraphs(max_length=REASON_MAX)
    confirm = Line(max_length=64)


class VersionRecallView(Endpoint):
    """A recall. It is for good."""

    @operation("Models", "What a recall of a version would reach", answer=RecallRadiusAnswer)
    def get(self, request: Request, version_id: int) -> Response:
        self.query()
        radius = blast_radius(actor=self.actor, version_id=version_id)
        return self.answer(radius, RecallRadiusAnswer)

    @operation(
        "Models",
        "Recall a version and everything below it, for good",
        body=RecallBody,
        answer=RecalledAnswer,
    )
    @idempotent
    def post(self, request: Request, version_id: int) -> Response:
        given = self.body(RecallBody)
        recalled = version_recall(actor=self.actor, version_id=version_id, **given)
        return self.answer(recalled, RecalledAnswer)
