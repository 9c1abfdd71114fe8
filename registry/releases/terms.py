"""Duration of approvals and due dates of reviews, by review policy."""

from __future__ import annotations

from dataclasses import dataclass

from governance.reviews.policies.document import ReviewPolicyDocument
from registry.releases.models import Release
from registry.releases.selectors import release_reviews
from registry.releases.tiers import policy_of


@dataclass(frozen=True, slots=True)
class Terms:
    """Days throughout.

    An approval lasts `valid_days`, and what serves under it goes on for `grace_days` after that.
    `warn_days`, falling, are how long before the end its department is warned. A review is due
    `due_days` after it opens, and its reviewers are reminded `escalate_days` before that.
    """

    valid_days: int
    grace_days: int
    warn_days: tuple[int, ...]
    due_days: int
    escalate_days: int


# What held for every tier before there were review policies.
_EARLIER = Terms(180, 0, (30, 7, 1), 14, 3)


def terms_of(release: Release) -> Terms:
    """The terms that `release` is reviewed, or was approved, under: those of the version of the
    review policy that its review opened with, whatever is in force by now.
    """
    review = release_reviews(release).select_related("review_policy").first()
    policy = policy_of(review) if review is not None else None
    return policy_terms(policy.document) if policy is not None else _EARLIER


def policy_terms(document: ReviewPolicyDocument) -> Terms:
    """The terms that a review policy sets."""
    return Terms(
        valid_days=document.valid_days,
        grace_days=document.grace_days,
        warn_days=tuple(document.warn_days),
        due_days=document.due_days,
        escalate_days=document.escalate_days,
    )
