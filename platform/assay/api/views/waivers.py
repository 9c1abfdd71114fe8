"""Waivers of checklist items: request, decide, end."""

from __future__ import annotations

from assay.api.representations.releases import ReleaseDetail
from assay.api.routes import Routes
from assay.api.views.releases import release_detail
from governance.principals import Principal
from governance.reviews.waivers.models import Waiver
from governance.reviews.waivers.schemas import NewWaiver, WaiverDecision, WaiverEnd
from governance.reviews.waivers.selectors import waiver_find
from governance.reviews.waivers.services import waiver_decide, waiver_request, waiver_withdraw
from registry.releases.models import Release
from registry.releases.selectors import release_get, release_review
from registry.releases.threads import release_review_get
from registry.releases.waivers import release_waiver_revoke

routes = Routes("Releases", ReleaseDetail)


@routes.create(
    "releases/<id:release_id>/checklist/<slug:code>/waivers",
    "Request a waiver of a checklist item until a date; a second person decides",
    name="waivers_post",
    judged=True,
)
def request(actor: Principal, release_id: int, code: str, body: NewWaiver) -> Release:
    review = release_review_get(actor=actor, release_id=release_id)
    waiver_request(actor=actor, review_id=review.pk, code=code, **dict(body))
    return release_detail(actor, release_id)


@routes.post(
    "releases/<id:release_id>/waivers/<id:waiver_id>/decision",
    "Grant or refuse a waiver that another person requested",
    name="waiver_decision_post",
    repeatable=True,
)
def decide(actor: Principal, release_id: int, waiver_id: int, body: WaiverDecision) -> Release:
    waiver = _waiver(actor, release_id, waiver_id)
    waiver_decide(actor=actor, waiver_id=waiver.pk, **dict(body))
    return release_detail(actor, release_id)


@routes.post(
    "releases/<id:release_id>/waivers/<id:waiver_id>/withdraw",
    "Withdraw your own request for a waiver",
    name="waiver_withdraw_post",
    repeatable=True,
)
def withdraw(actor: Principal, release_id: int, waiver_id: int, body: WaiverEnd) -> Release:
    waiver = _waiver(actor, release_id, waiver_id)
    waiver_withdraw(actor=actor, waiver_id=waiver.pk, reason=body.reason)
    return release_detail(actor, release_id)


@routes.post(
    "releases/<id:release_id>/waivers/<id:waiver_id>/revoke",
    "Revoke a granted waiver; releases that were approved with it stop serving",
    name="waiver_revoke_post",
    repeatable=True,
)
def revoke(actor: Principal, release_id: int, waiver_id: int, body: WaiverEnd) -> Release:
    waiver = _waiver(actor, release_id, waiver_id)
    release_waiver_revoke(
        actor=actor, release_id=release_id, waiver_id=waiver.pk, reason=body.reason
    )
    return release_detail(actor, release_id)


def _waiver(actor: Principal, release_id: int, waiver_id: int) -> Waiver:
    """Return a waiver of the review of a release that `actor` may see."""
    return waiver_find(release_review(release_get(actor=actor, id=release_id)), waiver_id)
