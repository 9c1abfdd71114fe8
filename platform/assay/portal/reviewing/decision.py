"""The decision box of the review page."""

from __future__ import annotations

from typing import Any

from assay.portal.reviewing.parts import Page
from governance.people.proof import CODE as STEP_UP
from governance.permissions import Action
from governance.reviews.absences.selectors import stands_in_for
from governance.reviews.models import ChecklistState, Review, Verdict
from governance.reviews.selectors import Standing, decision_obstacle

VERDICTS = (
    (Verdict.COMMENT, "Comment", "Comment without deciding."),
    (Verdict.APPROVE, "Approve", "It may run, for the stated purpose and departments."),
    (Verdict.REQUEST_CHANGES, "Request changes", "The department answers; then you decide again."),
    (Verdict.REJECT, "Reject", "Final: this request does not run."),
)


def decision(page: Page) -> dict[str, Any]:
    """Return the verdicts, and those that the person may give."""
    speaking = page.is_open and (
        page.may(Action.RELEASE_DECIDE, "release") or page.may(Action.REVIEW_COMMENT, "review")
    )
    voting = page.actor.specialties | stands_in_for(page.actor, page.review).keys()
    choices = choices_for(page, page.review) if speaking else []
    unproved = any(c["code"] == STEP_UP for c in choices)
    return {
        "page_open": page.is_open,
        "blockers": blockers(page.standing, choices),
        "blocking": [
            *((f"#item-{item.code}", item.title) for item in page.standing.blocking),
            *(
                (f"#thread-{thread.pk}", f"Thread {thread.pk} is not resolved")
                for thread in page.standing.unresolved
            ),
        ],
        "standing": page.standing,
        "choices": choices,
        "may_condition": any(c["value"] == Verdict.APPROVE and not c["blocked"] for c in choices),
        "unproved": unproved,
        "decides": any(not c["blocked"] for c in choices if c["value"] != Verdict.COMMENT),
        "specialties": sorted(voting & set(page.review.required_approvals)),
    }


def blockers(standing: Standing, choices: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return words and a link for each obstacle to approval now."""
    rows = []
    for state, words in (
        (ChecklistState.FAILED, "failed check"),
        (ChecklistState.OPEN, "item to judge"),
        (ChecklistState.WAIVED, "ended waiver"),
    ):
        items = [item for item in standing.blocking if item.state == state]
        if items:
            rows.append(_blocker(f"#item-{items[0].code}", len(items), words))
    if standing.unresolved:
        first = standing.unresolved[0]
        rows.append(_blocker(f"#thread-{first.pk}", len(standing.unresolved), "open thread"))
    approve = next((c for c in choices if c["value"] == Verdict.APPROVE), None)
    if not rows and approve and approve["blocked"]:
        rows.append({"href": "#decision", "words": "you may not approve"})
    return rows


def _blocker(href: str, count: int, words: str) -> dict[str, str]:
    one, _, rest = words.partition(" ")
    plural = words if count == 1 else f"items {rest}" if one == "item" else f"{words}s"
    return {"href": href, "words": f"{count} {plural}"}


def choices_for(page: Page, review: Review) -> list[dict[str, str]]:
    """Return the four verdicts, each with the reason if it is disabled."""
    choices = []
    for verdict, title, about in VERDICTS:
        obstacle = decision_obstacle(page.actor, review, verdict)
        blocked, code = (obstacle.message, obstacle.code) if obstacle else ("", "")
        if code == STEP_UP:
            # Submitting requests the second factor.
            blocked = ""
        choices.append(
            {"value": verdict, "title": title, "about": about, "blocked": blocked, "code": code}
        )
    return choices
