"""Input that the parts of the review page share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from assay.portal.access import may
from assay.portal.http import Screen
from governance.permissions import Action
from governance.principals import Principal
from governance.reviews.models import Review, ReviewState
from governance.reviews.selectors import Standing, review_standing
from registry.releases.models import Release

OPEN = (ReviewState.OPEN, ReviewState.CHANGES_REQUESTED)


@dataclass(frozen=True)
class Page:
    """The review page of one person."""

    screen: Screen
    review: Review
    release: Release
    tab: str

    @property
    def actor(self) -> Principal:
        return self.screen.actor

    @property
    def is_open(self) -> bool:
        """True while the review accepts comments."""
        return self.review.state in OPEN

    @property
    def had_a_part(self) -> bool:
        """True when the person submitted or made the object under review."""
        person = self.actor.person_id
        return person == self.review.opened_by_id or person in self.review.excluded_people

    @cached_property
    def standing(self) -> Standing:
        return review_standing(self.review)

    def may(self, action: Action, kind: str) -> bool:
        """True if the policy permits the person the action in the review's department."""
        return may(self.actor, action, kind=kind, department=self.review.department.slug)
