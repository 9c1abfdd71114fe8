"""Duration of approvals and due dates of reviews, by review policy."""

from __future__ import annotations

from dataclasses import dataclass

from governance.errors import NotFound
from governance.reviews.policies.document import ReviewPolicyDocument
from registry.releases.models import Release
from registry.releases.selectors import release_reviews
from registry.releases.tiers import policy_of


@dataclass(frozen=True, slots=True)
class Terms:
    """Terms of a review policy, in days.

    An approval lasts `valid_days`, and what serves by then goes on for `grace_days` more.
    `warn_days`, descending, are the days before the end on which its department is warned. A review
    is due `due_days` after it opens; its reviewers are reminded `escalate_days` before that.
    """

    valid_days: int
    grace_days: int
    warn_days: tuple[int, ...]
    due_days: int
    escalate_days: int


def terms_of(release: Release) -> Terms:
    """Return the terms of `release`: those of the review policy version that its review opened
    with, even if another one is in force now.

    Raises:
        NotFound: it has no review, or this has no policy.
    """
    review = release_reviews(release).select_related("review_policy").first()
    if review is None:
        raise NotFound(f"Release {release.pk} has no review.")
    return policy_terms(policy_of(review).document)


def policy_terms(document: ReviewPolicyDocument) -> Terms:
    """Return the terms that a review policy sets."""
    return Terms(
        valid_days=document.valid_days,
        grace_days=document.grace_days,
        warn_days=tuple(document.warn_days),
        due_days=document.due_days,
        escalate_days=document.escalate_days,
    )
