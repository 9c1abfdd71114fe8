"""The people to whom a review is assigned, and those to whom it may be."""

from __future__ import annotations

from typing import Any

from assay.portal.reviewing.parts import Page
from governance.permissions import Action
from governance.reviews.assignments.selectors import assignable_people, assignees_by_review


def assignees(page: Page) -> dict[str, Any]:
    """Assignees of an open review; the rest only for who may assign it."""
    assigned = assignees_by_review([page.review])[page.review.pk]
    may_assign = page.is_open and page.may(Action.REVIEW_ASSIGN, "review")
    people = assignable_people(page.actor, page.review) if may_assign else []
    free = [person for person in people if person not in assigned]
    return {
        "assignees": assigned,
        "may_assign": may_assign,
        "may_take": any(person.pk == page.actor.person_id for person in free),
        "assignable": [person for person in free if person.pk != page.actor.person_id],
    }
