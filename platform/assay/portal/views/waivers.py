"""Waivers of checklist items, on the page of their review."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Any

from django.http import HttpResponse

from assay.portal.views.reviews import ReviewPage, review_find
from governance.errors import InvalidInput
from governance.reviews.waivers.models import WaiverState
from governance.reviews.waivers.selectors import waiver_find
from governance.reviews.waivers.services import (
    waiver_decide,
    waiver_request,
    waiver_withdraw,
)
from registry.releases.waivers import release_waiver_revoke

SENTENCES = {
    WaiverState.GRANTED: "Waived. The item returns to its earlier state when the waiver ends.",
    WaiverState.REFUSED: "Refused.",
    WaiverState.WITHDRAWN: "Withdrawn.",
    WaiverState.REVOKED: "Revoked. Releases that were approved with it stop serving.",
}


class WaiverAsk(ReviewPage):
    """Request a waiver of one item until the end of a day (UTC)."""

    def act(self, *, id: int, code: str, **kwargs: Any) -> HttpResponse:  # noqa: A002
        review = review_find(self, id)
        waiver_request(
            actor=self.actor,
            review_id=review.pk,
            code=code,
            reason=self.request.POST.get("reason", "").strip(),
            expires_at=end_of(self.request.POST.get("until", "")),
        )
        return self.back("Requested. A second person decides.", "checklist")


class WaiverAct(ReviewPage):
    """Grant, refuse, withdraw or revoke a waiver."""

    def act(self, *, id: int, waiver_id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        review = review_find(self, id)
        waiver = waiver_find(review, waiver_id)
        verdict = self.request.POST.get("do", "")
        reason = self.request.POST.get("reason", "").strip()
        arguments: dict[str, Any] = {
            "actor": self.actor,
            "waiver_id": waiver.pk,
            "reason": reason,
        }
        if verdict == WaiverState.WITHDRAWN:
            waiver_withdraw(**arguments)
        elif verdict == WaiverState.REVOKED:
            release_waiver_revoke(release_id=int(review.subject_id), **arguments)
        else:
            waiver_decide(verdict=verdict, **arguments)
        return self.back(SENTENCES[WaiverState(verdict)], "checklist")


def end_of(text: str) -> datetime:
    """Return the end of the day.

    Raises:
        InvalidInput: the text is not a date.
    """
    try:
        day = date.fromisoformat(text[:10])
    except ValueError:
        raise InvalidInput(
            "The end of the waiver is not a date.",
            hint="Write it as 2026-12-31.",
            fields={"until": ["must be a date"]},
        ) from None
    return datetime.combine(day, time(23, 59, 59), UTC)
