"""Assign a review to a person who could decide on it, and unassign them."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from governance.audit.services import audit_record
from governance.errors import NotFound, WrongState
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.services import authorize
from governance.principals import Principal
from governance.reviews.assignments.models import ReviewAssignment
from governance.reviews.assignments.selectors import assignee_get, assignments_in_force
from governance.reviews.inbox import WAITING
from governance.reviews.models import Review
from governance.reviews.reminders.models import ReminderKind
from governance.reviews.reminders.schedule import people_tell
from governance.reviews.selectors import review_resource, speaker_id
from governance.reviews.states import review_locked, review_subject

ASSIGNEES_MAX = 10


def review_assign(*, actor: Principal, review_id: int, person_id: int) -> ReviewAssignment:
    """Assign the review to a person who could decide on it, and notify them, once a review.

    Raises:
        InvalidInput: the person could not decide on it.
        NotFound, NotPermitted: the policy denies it, or the actor may not know of the person.
        WrongState: the review is closed, already assigned to them, or has too many assignees.
    """
    with transaction.atomic():
        review, decision = _allowed(actor, review_id)
        assigning_id = speaker_id(actor)
        person = assignee_get(actor, review, person_id)
        if review.state not in WAITING:
            raise WrongState(
                f"Review {review.pk} of {review.subject_name} is "
                f"{review.get_state_display().lower()}; it cannot be assigned.",
                hint="Only a review that waits for decisions or an answer can be assigned.",
            )
        rows = ReviewAssignment.objects.filter(review=review)
        if rows.filter(person=person).exists():
            raise WrongState(
                f"Review {review.pk} of {review.subject_name} is assigned to {person.name} already."
            )
        if assignments_in_force().filter(review=review).count() >= ASSIGNEES_MAX:
            raise WrongState(
                f"Review {review.pk} of {review.subject_name} is assigned to {ASSIGNEES_MAX} "
                "people; no more are possible.",
                hint="Unassign someone first.",
            )
        assignment = ReviewAssignment.objects.create(
            review=review, person=person, assigned_by_id=assigning_id
        )
        channels = []
        notices = review.reminders.filter(kind=ReminderKind.ASSIGNED, people__contains=[person.pk])
        if person.pk != assigning_id and not notices.exists():
            channels = people_tell(review=review, kind=ReminderKind.ASSIGNED, people=[person])
        _record(actor, "review:assign", review, decision, person=person.pk, channels=channels)
    return assignment


def review_unassign(*, actor: Principal, review_id: int, person_id: int) -> None:
    """Remove an assignment, whoever made it.

    Raises:
        NotFound, NotPermitted: the policy denies it, or the review is not assigned to the person.
    """
    with transaction.atomic():
        review, decision = _allowed(actor, review_id)
        speaker_id(actor)
        deleted, _ = ReviewAssignment.objects.filter(review=review, person_id=person_id).delete()
        if not deleted:
            raise NotFound(f"Review {review.pk} is not assigned to person {person_id}.")
        _record(actor, "review:unassign", review, decision, person=person_id)


def _allowed(actor: Principal, review_id: int) -> tuple[Review, Authorization]:
    review = review_locked(review_id)
    resource = review_resource(review)
    return review, authorize(actor=actor, action=Action.REVIEW_ASSIGN, resource=resource)


def _record(
    actor: Principal, action: str, review: Review, decision: Authorization, **data: Any
) -> None:
    audit_record(
        actor=actor,
        action=action,
        subject=review_subject(review),
        department=review.department.slug,
        data={
            **data,
            "round": review.round,
            "subject": f"{review.subject_type} {review.subject_id}",
        },
        decision=decision,
    )
