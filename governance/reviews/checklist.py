"""A review's checklist: its items, and their attestation by reviewers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from django.db import transaction
from django.utils import timezone

from governance.audit.services import audit_record
from governance.errors import NotFound, WrongState
from governance.permissions import Action
from governance.policy.services import authorize
from governance.principals import Principal
from governance.reviews.models import NOTE_MAX, ChecklistItem, ChecklistState, Review, ReviewState
from governance.reviews.selectors import review_resource, separation_obstacle
from governance.reviews.states import review_locked, review_subject
from governance.reviews.texts import text_checked

# Reasons that an item cannot be attested (again).
_DONE: dict[str, str] = {
    ChecklistState.SATISFIED: "attested already",
    ChecklistState.NOT_APPLICABLE: "not applicable",
    ChecklistState.WAIVED: "waived (revoke its waiver first)",
}


class CheckOutcome(StrEnum):
    """Result of a machine check.

    `NOT_APPLICABLE`: there was nothing to check; the note gives the reason. It does not block the
    approval, and is never shown as passed. `NEEDS_JUDGMENT`: the machine cannot decide; a reviewer
    reads its note and attests the item.
    """

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not_applicable"
    NEEDS_JUDGMENT = "needs_judgment"


_STATES = {
    CheckOutcome.PASSED: ChecklistState.SATISFIED,
    CheckOutcome.FAILED: ChecklistState.FAILED,
    CheckOutcome.NOT_APPLICABLE: ChecklistState.NOT_APPLICABLE,
    CheckOutcome.NEEDS_JUDGMENT: ChecklistState.OPEN,
}


@dataclass(frozen=True, slots=True)
class ChecklistEntry:
    """An item as the subject's own context defines it.

    `outcome`: result of its machine check; None for an item that only a reviewer attests.
    `waivable`: whether the item may be excused for a limited time.
    """

    code: str
    title: str
    why: str = ""
    outcome: CheckOutcome | None = None
    note: str = ""
    waivable: bool = True

    @property
    def automatic(self) -> bool:
        """Return whether the machine decided it, so that reviewers cannot attest it."""
        return self.outcome not in (None, CheckOutcome.NEEDS_JUDGMENT)

    @property
    def state(self) -> ChecklistState:
        """Return the item's initial state."""
        return ChecklistState.OPEN if self.outcome is None else _STATES[self.outcome]


def checklist_write(review: Review, checklist: Sequence[ChecklistEntry]) -> None:
    """Replace the items with the same codes. The caller has locked the review."""
    for entry in checklist:
        ChecklistItem.objects.update_or_create(
            review=review,
            code=entry.code,
            defaults={
                "title": entry.title,
                "why": entry.why,
                "automatic": entry.automatic,
                "waivable": entry.waivable,
                "state": entry.state,
                "note": entry.note[:NOTE_MAX],
                "digest": review.digest if entry.automatic else "",
                "checked_at": timezone.now() if entry.automatic else None,
                "attested_by": None,
                "attested_at": None,
                "carried_from": None,
            },
        )


def checklist_attest(*, actor: Principal, review_id: int, code: str, note: str) -> ChecklistItem:
    """Attest one item as a reviewer, with a note.

    Raises:
        InvalidInput: the note is missing.
        NotFound, NotPermitted: the item does not exist, or policy or separation of duties deny it.
        WrongState: the review is not open, or the item is automatic or already attested.
    """
    note = text_checked(note, "note", NOTE_MAX)
    with transaction.atomic():
        review = review_locked(review_id)
        decision = authorize(
            actor=actor, action=Action.CHECKLIST_ATTEST, resource=review_resource(review)
        )
        obstacle = separation_obstacle(actor, review, "attest anything in", Action.CHECKLIST_ATTEST)
        if obstacle is not None:
            raise obstacle
        of_review = f"of review {review.pk} of {review.subject_name}"
        item = None if "\x00" in code else review.checklist.filter(code=code).first()
        if item is None:
            raise NotFound(f"The checklist {of_review} has no item {code[:60]}.")
        if item.automatic:
            raise WrongState(
                f"“{item.title}” {of_review} is checked automatically; it cannot be attested."
            )
        # An attestation that was carried over may be made again.
        done = item.state in _DONE and item.carried_from_id is None
        if review.state != ReviewState.OPEN or done:
            state = _DONE[item.state] if done else ReviewState(review.state).label.lower()
            raise WrongState(f"“{item.title}” {of_review} cannot be attested: it is {state}.")
        item.state = ChecklistState.SATISFIED
        item.note = note
        item.digest = review.digest
        item.attested_by_id = actor.person_id
        item.attested_at = timezone.now()
        item.carried_from = None
        item.save(
            update_fields=["state", "note", "digest", "attested_by", "attested_at", "carried_from"]
        )
        audit_record(
            actor=actor,
            action=Action.CHECKLIST_ATTEST,
            subject=review_subject(review),
            reason=note,
            department=review.department.slug,
            data={"code": code, "digest": review.digest, "round": review.round},
            decision=decision,
        )
    return item
