"""The box in which a reviewer decides."""

from __future__ import annotations

from typing import Any

from assay.portal.reviewing.parts import Page
from governance.permissions import Action
from governance.reviews.models import Review, Verdict
from governance.reviews.selectors import why_not

VERDICTS = (
    (Verdict.COMMENT, "Comment", "Say something without deciding."),
    (Verdict.APPROVE, "Approve", "It may run, for the stated purpose and departments."),
    (Verdict.REQUEST_CHANGES, "Request changes", "The department answers; then you decide again."),
    (Verdict.REJECT, "Reject", "Final: this request does not run."),
)


def decision(page: Page) -> dict[str, Any]:
    """The verdicts, and who may give them."""
    speaking = page.is_open and (
        page.may(Action.RELEASE_DECIDE, "release") or page.may(Action.REVIEW_COMMENT, "review")
    )
    choices = choices_for(page, page.review) if speaking else []
    return {
        "standing": page.standing,
        "choices": choices,
        "decides": any(not c["blocked"] for c in choices if c["value"] != Verdict.COMMENT),
        "specialities": sorted(page.actor.specialities & set(page.review.required_approvals)),
    }


def choices_for(page: Page, review: Review) -> list[dict[str, str]]:
    """The four verdicts, each with why it is disabled when it is."""
    return [
        {
            "value": verdict,
            "title": title,
            "about": about,
            "blocked": why_not(page.actor, review, verdict),
        }
        for verdict, title, about in VERDICTS
    ]
