"""Comments and decisions in order, the department's answer, and the audit events."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from assay.portal.reviewing.parts import Page
from assay.portal.reviewing.threads import threads
from assay.portal.words import described_all
from governance.audit.selectors import audit_events_visible_to
from governance.permissions import Action
from governance.reviews.models import Decision, Review, ReviewState, Verdict
from governance.reviews.threads.models import ReviewThread

# Risk answers that the department may reword when it answers the reviewers.
FREE_TEXT = ("intended_purpose", "affected_people", "notes")


def conversation(page: Page) -> dict[str, Any]:
    """Return the threads, the timeline, and the risk answers that an answer may reword."""
    answers = page.release.risk_answers
    context = threads(page)
    return {
        **context,
        "timeline": timeline(page.review, context["threads"]),
        "may_answer": page.review.state == ReviewState.CHANGES_REQUESTED
        and page.may(Action.RELEASE_SUBMIT, "release"),
        "rewordable": [(name, answers.get(name, "")) for name in FREE_TEXT],
    }


def timeline(review: Review, opened: Iterable[ReviewThread]) -> list[dict[str, Any]]:
    """Return the review's opening, decisions, threads and closing in order, with a separator for
    each new round.
    """
    items: list[dict[str, Any]] = [
        {"kind": "opened", "at": review.opened_at, "person": review.opened_by}
    ]
    current = 1
    for _, entry in _in_order(review, opened):
        if entry.round > current:
            current = entry.round
            items.append({"kind": "round", "round": current})
        if isinstance(entry, ReviewThread):
            items.append({"kind": "thread", "thread": entry})
            continue
        answer = entry.verdict == Verdict.COMMENT and entry.person_id == review.opened_by_id
        items.append({"kind": "answer" if answer else "decision", "decision": entry})
    if review.round > current:
        items.append({"kind": "round", "round": review.round})
    if review.closed_at:
        items.append({"kind": "closed", "at": review.closed_at, "state": review.state})
    return items


def _in_order(
    review: Review, opened: Iterable[ReviewThread]
) -> list[tuple[datetime, Decision | ReviewThread]]:
    """Sort decisions and threads by time; threads submitted with a decision follow it."""
    entries: list[tuple[datetime, Decision | ReviewThread]] = [
        *((each.created_at, each) for each in review.decisions.all()),
        *((each.opened_at, each) for each in opened),
    ]
    return sorted(entries, key=lambda pair: pair[0])


def trail(page: Page) -> dict[str, Any]:
    """Return the audit events of the release and its review, for their tab only."""
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
