"""Waivers of checklist items: request, decide, end."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from assay.api.documentation import operation
from assay.api.endpoint import Endpoint
from assay.api.fields import Choice, Moment, Paragraphs, StrictSerializer
from assay.api.idempotency import idempotent
from assay.api.representations.releases import ReleaseDetail
from assay.api.views.releases import shown_release
from governance.errors import NotFound
from governance.principals import Principal
from governance.reviews.waivers.models import REASON_MAX, Waiver, WaiverState
from governance.reviews.waivers.selectors import waiver_find
from governance.reviews.waivers.services import (
    waiver_decide,
    waiver_request,
    waiver_withdraw,
)
from registry.releases.selectors import release_get, release_review
from registry.releases.waivers import release_waiver_revoke


def _waiver(actor: Principal, release_id: int, waiver_id: int) -> Waiver:
    """A waiver of the release's review, for who may see the release."""
    return waiver_find(release_review(release_get(actor=actor, id=release_id)), waiver_id)


class WaiverBody(StrictSerializer):
    """Why the item may be excused, and until when; within a year."""

    reason = Paragraphs(max_length=REASON_MAX)
    expires_at = Moment()


class WaiversView(Endpoint):
    """Waivers of one checklist item."""

    @operation(
        "Releases",
        "Ask that a checklist item be waived for a time; a second person decides",
        body=WaiverBody,
        answer=ReleaseDetail,
        status=201,
    )
    @idempotent
    def post(self, request: Request, release_id: int, code: str) -> Response:
        given = self.body(WaiverBody)
        release = release_get(actor=self.actor, id=release_id)
        review = release_review(release)
        if review is None:
            raise NotFound(f"{release} has no review, and so no checklist.")
        waiver_request(actor=self.actor, review_id=review.pk, code=code, **given)
        return self.answer(shown_release(self.actor, release_id), ReleaseDetail, status=201)


class WaiverDecisionBody(StrictSerializer):
    """Granted or refused, and why."""

    verdict = Choice(
        choices=[(v, v) for v in (WaiverState.GRANTED.value, WaiverState.REFUSED.value)]
    )
    reason = Paragraphs(max_length=REASON_MAX)


class WaiverDecisionView(Endpoint):
    """The second person's word."""

    @operation(
        "Releases",
        "Grant or refuse a waiver that another person requested",
        body=WaiverDecisionBody,
        answer=ReleaseDetail,
    )
    @idempotent
    def post(self, request: Request, release_id: int, waiver_id: int) -> Response:
        given = self.body(WaiverDecisionBody)
        waiver = _waiver(self.actor, release_id, waiver_id)
        waiver_decide(actor=self.actor, waiver_id=waiver.pk, **given)
        return self.answer(shown_release(self.actor, release_id), ReleaseDetail)


class WaiverEndBody(StrictSerializer):
    """Why."""

    reason = Paragraphs(max_length=REASON_MAX)


class WaiverWithdrawView(Endpoint):
    """Withdraw a waiver request."""

    @operation(
        "Releases",
        "Withdraw one's own request for a waiver",
        body=WaiverEndBody,
        answer=ReleaseDetail,
    )
    @idempotent
    def post(self, request: Request, release_id: int, waiver_id: int) -> Response:
        given: dict[str, Any] = self.body(WaiverEndBody)
        waiver = _waiver(self.actor, release_id, waiver_id)
        waiver_withdraw(actor=self.actor, waiver_id=waiver.pk, **given)
        return self.answer(shown_release(self.actor, release_id), ReleaseDetail)


class WaiverRevokeView(Endpoint):
    """The end of a waiver before its time."""

    @operation(
        "Releases",
        "Revoke a granted waiver; what was approved with it stops serving",
        body=WaiverEndBody,
        answer=ReleaseDetail,
    )
    @idempotent
    def post(self, request: Request, release_id: int, waiver_id: int) -> Response:
        given: dict[str, Any] = self.body(WaiverEndBody)
        waiver = _waiver(self.actor, release_id, waiver_id)
        release_waiver_revoke(actor=self.actor, release_id=release_id, waiver_id=waiver.pk, **given)
        return self.answer(shown_release(self.actor, release_id), ReleaseDetail)
