"""A review's checklist: its items as they are stated, and a reviewer who vouches for one."""

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

# Why an item is not attested (once more).
_DONE: dict[str, str] = {
    ChecklistState.SATISFIED: "attested already",
    ChecklistState.NOT_APPLICABLE: "not applicable",
    ChecklistState.WAIVED: "waived, and its waiver is revoked first",
}


class CheckOutcome(StrEnum):
    """Result of a machine check.

    `NOT_APPLICABLE`: there was nothing to check; the note says why. It blocks no approval and is
    never shown as passed. `NEEDS_JUDGMENT`: the machine cannot decide; a reviewer attests the item
    with the machine's note in view.
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
    """One item as the subject's own context states it.

    `outcome`: result of its machine check; None for an item that only a reviewer attests.
    `waivable`: true if the item may be excused for a limited time.
    """

    code: str
    title: str
    why: str = ""
    outcome: CheckOutcome | None = None
    note: str = ""
    waivable: bool = True

    @property
    def automatic(self) -> bool:
        """True if the machine decided it, so that no reviewer attests it."""
        return self.outcome not in (None, CheckOutcome.NEEDS_JUDGMENT)

    @property
    def state(self) -> ChecklistState:
        """State that the item begins with."""
        return ChecklistState.OPEN if self.outcome is None else _STATES[self.outcome]


def checklist_write(review: Review, checklist: Sequence[ChecklistEntry]) -> None:
    """Put the items in the place of those of the same code; for whoever has the review's row."""
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
    """A reviewer vouches for one item, in their own words.

    Raises:
        InvalidInput: no note.
        NotFound, NotPermitted: no such item, or the policy or separation of duties refuses.
        WrongState: the review is not open, the item is checked by machine, or is attested already.
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
        what = f"of review {review.pk} of {review.subject_name}"
        item = None if "\x00" in code else review.checklist.filter(code=code).first()
        if item is None:
            raise NotFound(f"The checklist {what} has no item {code[:60]}.")
        if item.automatic:
            raise WrongState(
                f"“{item.title}” {what} is checked automatically; it cannot be attested."
            )
        # What was carried over may be looked at anew.
        done = item.state in _DONE and item.carried_from_id is None
        if review.state != ReviewState.OPEN or done:
            state = _DONE[item.state] if done else ReviewState(review.state).label.lower()
            raise WrongState(f"“{item.title}” {what} cannot be attested: it is {state}.")
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
