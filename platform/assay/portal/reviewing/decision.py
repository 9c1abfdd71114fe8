"""The box in which a reviewer decides."""

from __future__ import annotations

from typing import Any

from assay.portal.reviewing.parts import Page
from governance.people.proof import CODE as STEP_UP
from governance.permissions import Action
from governance.reviews.absences.selectors import stands_in_for
from governance.reviews.models import Review, Verdict
from governance.reviews.selectors import decision_obstacle

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
    voting = page.actor.specialities | stands_in_for(page.actor, page.review).keys()
    choices = choices_for(page, page.review) if speaking else []
    return {
        "standing": page.standing,
        "choices": choices,
        "may_condition": any(
            c["value"] == Verdict.APPROVE and (not c["blocked"] or c["code"] == STEP_UP)
            for c in choices
        ),
        "unproved": any(c["code"] == STEP_UP for c in choices),
        "decides": any(not c["blocked"] for c in choices if c["value"] != Verdict.COMMENT),
        "specialities": sorted(voting & set(page.review.required_approvals)),
    }


def choices_for(page: Page, review: Review) -> list[dict[str, str]]:
    """The four verdicts, each with why it is disabled when it is."""
    choices = []
    for verdict, title, about in VERDICTS:
        obstacle = decision_obstacle(page.actor, review, verdict)
        blocked, code = (obstacle.message, obstacle.code) if obstacle else ("", "")
        choices.append(
            {"value": verdict, "title": title, "about": about, "blocked": blocked, "code": code}
        )
    return choices
