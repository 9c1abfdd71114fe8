"""Closing the open reviews of what is gone, all at once."""

from __future__ import annotations

from collections.abc import Collection

from django.utils import timezone

from governance.audit.services import AuditEntry, audit_record_many
from governance.principals import Principal
from governance.reviews.models import Review, ReviewState
from governance.reviews.states import ALLOWED_TRANSITIONS, review_subject


def reviews_void(
    *,
    actor: Principal,
    subject_type: str,
    subject_ids: Collection[str],
    reason: str,
    policy_version: int | None,
) -> int:
    """Void every open review of these subjects, with an event each; returns how many there were.

    For the subject's own context, which has authorized what made them pointless, in its
    transaction.
    """
    open_states = [s for s, to in ALLOWED_TRANSITIONS.items() if ReviewState.VOIDED in to]
    reviews = list(
        Review.objects.select_for_update(of=("self",))
        .select_related("department")
        .filter(subject_type=subject_type, subject_id__in=subject_ids, state__in=open_states)
        .order_by("pk")
    )
    Review.objects.filter(pk__in=[review.pk for review in reviews]).update(
        state=ReviewState.VOIDED, closed_at=timezone.now()
    )
    return audit_record_many(
        AuditEntry(
            actor=actor,
            action=f"review:{ReviewState.VOIDED.value}",
            subject=review_subject(review),
            reason=reason,
            department=review.department.slug,
            data={
                "before": review.state,
                "after": ReviewState.VOIDED.value,
                "digest": review.digest,
                "round": review.round,
                "subject": f"{review.subject_type} {review.subject_id}",
            },
            policy_version=policy_version,
        )
        for review in reviews
    )
