"""What was said, in order; the department's answer; and the events behind it."""

from __future__ import annotations

from typing import Any

from assay.portal.reviewing.parts import Page
from assay.portal.words import described_all
from governance.audit.selectors import audit_events_visible_to
from governance.permissions import Action
from governance.reviews.models import Review, ReviewState, Verdict

# The risk answers that an answer to the reviewers may reword.
FREE_TEXT = ("intended_purpose", "affected_people", "notes")


def conversation(page: Page) -> dict[str, Any]:
    """The timeline, and what an answer may reword."""
    answers = page.release.risk_answers
    return {
        "timeline": timeline(page.review),
        "may_answer": page.review.state == ReviewState.CHANGES_REQUESTED
        and page.may(Action.RELEASE_SUBMIT, "release"),
        "rewordable": [(name, answers.get(name, "")) for name in FREE_TEXT],
    }


def timeline(review: Review) -> list[dict[str, Any]]:
    """Opened, every decision with separators where a new round began, and how it ended."""
    items: list[dict[str, Any]] = [
        {"kind": "opened", "at": review.opened_at, "person": review.opened_by}
    ]
    current = 1
    for decision in review.decisions.all():
        if decision.round > current:
            current = decision.round
            items.append({"kind": "round", "round": current})
        answer = decision.verdict == Verdict.COMMENT and decision.person_id == review.opened_by_id
        items.append({"kind": "answer" if answer else "decision", "decision": decision})
    if review.round > current:
        items.append({"kind": "round", "round": review.round})
    if review.closed_at:
        items.append({"kind": "closed", "at": review.closed_at, "state": review.state})
    return items


def trail(page: Page) -> dict[str, Any]:
    """The audit events of the release and its review, for their tab only."""
    if page.tab != "audit":
        return {}
    review = page.review
    events = audit_events_visible_to(page.actor).filter(
        subject_type=review.subject_type, subject_id=review.subject_id
    )
    own = audit_events_visible_to(page.actor).filter(
        subject_type="review", subject_id=str(review.pk)
    )
    return {"trail": described_all((events | own).order_by("-id")[:100])}
