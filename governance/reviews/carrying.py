"""Attestations carried over from an earlier review, for parts that have not changed since."""

from __future__ import annotations

from collections.abc import Iterable

from governance.audit.services import audit_record
from governance.principals import Principal
from governance.reviews.models import ChecklistItem, ChecklistState, Review
from governance.reviews.states import review_subject

CARRY_OVER = "checklist:carry_over"


def attested_in(review: Review) -> list[ChecklistItem]:
    """Return the items of `review` that people attested, in its order."""
    return [
        item
        for item in review.checklist.all()
        if not item.automatic
        and item.state == ChecklistState.SATISFIED
        and item.attested_by_id is not None
    ]


def checklist_carry(
    *, actor: Principal, review: Review, source: Review, items: Iterable[ChecklistItem]
) -> list[str]:
    """Carry attestations of `source` over to a review that has just been opened; returns the codes.

    The subject's own context calls this in the transaction that opened the review, after checking
    that the basis of `items` has not changed. Excluded: items whose attester had a part in the
    subject, whose wording changed, or that are now automatic.
    """
    excluded = {*review.excluded_people, review.opened_by_id}
    by_code = {item.code: item for item in review.checklist.filter(automatic=False)}
    carried = []
    for old in items:
        item = by_code.get(old.code)
        if item is None or old.attested_by_id in excluded or not same_item(item, old):
            continue
        item.state = ChecklistState.SATISFIED
        item.note, item.digest = old.note, old.digest
        item.attested_by_id, item.attested_at = old.attested_by_id, old.attested_at
        item.carried_from_id = old.carried_from_id or source.pk
        item.save()
        carried.append(item)
    if carried:
        audit_record(
            actor=actor,
            action=CARRY_OVER,
            subject=review_subject(review),
            department=review.department.slug,
            data={
                "digest": review.digest,
                "items": [
                    {
                        "code": item.code,
                        "attested_by": item.attested_by_id,
                        "review": item.carried_from_id,
                    }
                    for item in carried
                ],
            },
            policy_version=review.policy_version,
        )
    return [item.code for item in carried]


def same_item(one: ChecklistItem, other: ChecklistItem) -> bool:
    """Return whether two items have the same wording and kind."""
    return (one.title, one.why, one.automatic) == (other.title, other.why, other.automatic)
