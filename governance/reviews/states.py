"""Where a review may go, and the one function that moves it there."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.errors import NotFound, WrongState
from governance.principals import Principal
from governance.reviews.models import Review, ReviewState

ALLOWED_TRANSITIONS: dict[ReviewState, frozenset[ReviewState]] = {
    ReviewState.OPEN: frozenset(
        {
            ReviewState.CHANGES_REQUESTED,
            ReviewState.APPROVED,
            ReviewState.REJECTED,
            ReviewState.WITHDRAWN,
            ReviewState.VOIDED,
        }
    ),
    ReviewState.CHANGES_REQUESTED: frozenset(
        {ReviewState.OPEN, ReviewState.WITHDRAWN, ReviewState.VOIDED}
    ),
    ReviewState.APPROVED: frozenset(),
    ReviewState.REJECTED: frozenset(),
    ReviewState.WITHDRAWN: frozenset(),
    ReviewState.VOIDED: frozenset(),
}


def review_subject(review: Review) -> Subject:
    """The review as the audit log names it."""
    return Subject("review", str(review.pk), review.subject_name)


def review_locked(review_id: int) -> Review:
    """The review, its row locked until the transaction ends.

    Raises:
        NotFound: there is none.
    """
    rows = Review.objects.select_for_update(of=("self",)).select_related("department")
    review = rows.filter(pk=review_id).first()
    if review is None:
        raise NotFound("There is no such review.")
    return review


def review_set_state(
    *,
    actor: Principal,
    review_id: int,
    state: ReviewState,
    reason: str,
    policy_version: int | None = None,
) -> Review:
    """Lock, re-check, move and audit.

    Raises:
        NotFound: there is no such review.
        WrongState: the table allows no such move.
    """
    with transaction.atomic():
        review = review_locked(review_id)
        before = ReviewState(review.state)
        if state not in ALLOWED_TRANSITIONS[before]:
            raise WrongState(
                f"Review {review.pk} of {review.subject_name} is {before.label.lower()}; "
                f"it cannot become {state.label.lower()}.",
                hint=_hint(before),
            )
        review.state = state
        if not ALLOWED_TRANSITIONS[state]:
            review.closed_at = timezone.now()
        review.save(update_fields=["state", "closed_at"])
        audit_record(
            actor=actor,
            action=f"review:{state.value}",
            subject=review_subject(review),
            reason=reason,
            department=review.department.slug,
            data={
                "before": before.value,
                "after": state.value,
                "digest": review.digest,
                "round": review.round,
                "subject": f"{review.subject_type} {review.subject_id}",
            },
            policy_version=policy_version,
        )
    return review


def _hint(before: ReviewState) -> str:
    moves = sorted(state.label.lower() for state in ALLOWED_TRANSITIONS[before])
    return f"From there it can become {', '.join(moves)}." if moves else "That state is final."
