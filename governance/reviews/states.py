"""Transitions of reviews, and the functions that change the state of one or many."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from django.db import transaction
from django.utils import timezone

from governance.audit.services import AuditEntry, Subject, audit_record_many
from governance.policy.decisions import Authorization
from governance.principals import Principal
from governance.reviews.models import Review, ReviewState
from governance.state_machine import StateMachine, transition

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
REVIEW_STATES = StateMachine(
    model=Review,
    noun="review",
    table=ALLOWED_TRANSITIONS,
    related=("department",),
    label=lambda review: f"{review.pk} of {review.subject_name}",
)
review_locked = REVIEW_STATES.locked


def review_subject(review: Review) -> Subject:
    """Return the review as an audit subject."""
    return Subject("review", str(review.pk), review.subject_name)


def review_set_state(
    *,
    actor: Principal,
    review_id: int,
    state: ReviewState,
    reason: str,
    decision: Authorization | None = None,
) -> Review:
    """Lock a review, check and change its state, and record the event.

    Raises:
        NotFound: the review does not exist.
        WrongState: the transition is not allowed.
    """
    with transaction.atomic():
        review = review_locked(review_id)
        if not ALLOWED_TRANSITIONS[state]:
            review.closed_at = timezone.now()
        REVIEW_STATES.move(
            review,
            state,
            fields=["closed_at"],
            actor=actor,
            action="review:reopened" if state is ReviewState.OPEN else f"review:{state.value}",
            subject=review_subject(review),
            reason=reason,
            department=review.department.slug,
            data=_facts(review),
            decision=decision,
        )
    return review


def reviews_void(
    *,
    actor: Principal,
    subject_type: str,
    subject_ids: Collection[str],
    reason: str,
    decision: Authorization | None = None,
) -> int:
    """Void every open review of these subjects, with an event each; returns their number.

    The subject's own context calls this in its transaction. It has authorized the change that makes
    the reviews pointless.
    """
    open_states = [s for s, to in ALLOWED_TRANSITIONS.items() if ReviewState.VOIDED in to]
    reviews = list(
        Review.objects.select_for_update(of=("self",))
        .select_related("department")
        .filter(subject_type=subject_type, subject_id__in=subject_ids, state__in=open_states)
        .order_by("pk")
    )
    REVIEW_STATES.save_states(reviews, ReviewState.VOIDED, closed_at=timezone.now())
    return audit_record_many(
        AuditEntry(
            actor=actor,
            action=f"review:{ReviewState.VOIDED.value}",
            subject=review_subject(review),
            reason=reason,
            department=review.department.slug,
            data=transition(ReviewState(review.state), ReviewState.VOIDED) | _facts(review),
            decision=decision,
        )
        for review in reviews
    )


def _facts(review: Review) -> dict[str, Any]:
    """Return the data of an event about the review."""
    return {
        "digest": review.digest,
        "round": review.round,
        "subject": f"{review.subject_type} {review.subject_id}",
    }
