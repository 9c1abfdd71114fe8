"""Transitions of a waiver, and their effect on its item."""

from __future__ import annotations

from django.utils import timezone

from governance.policy.decisions import Authorization
from governance.principals import Principal
from governance.reviews.models import MET_STATES, ChecklistItem, ChecklistState, Review, ReviewState
from governance.reviews.states import ALLOWED_TRANSITIONS as REVIEW_TRANSITIONS
from governance.reviews.states import review_locked, review_subject
from governance.reviews.waivers.models import Waiver, WaiverState
from governance.state_machine import StateMachine

ALLOWED_TRANSITIONS: dict[WaiverState, frozenset[WaiverState]] = {
    WaiverState.REQUESTED: frozenset(
        {WaiverState.GRANTED, WaiverState.REFUSED, WaiverState.WITHDRAWN}
    ),
    WaiverState.GRANTED: frozenset({WaiverState.REVOKED, WaiverState.EXPIRED}),
    WaiverState.REFUSED: frozenset(),
    WaiverState.WITHDRAWN: frozenset(),
    WaiverState.REVOKED: frozenset(),
    WaiverState.EXPIRED: frozenset(),
}
WAIVER_STATES = StateMachine(
    model=Waiver,
    noun="waiver",
    table=ALLOWED_TRANSITIONS,
    hint="request a new one",
    label=lambda waiver: f"of “{waiver.item.title}”",
)
_DECIDED = (WaiverState.GRANTED, WaiverState.REFUSED)


def waiver_locked(waiver_id: int) -> Waiver:
    """Return the waiver with its review, which is locked until the transaction ends.

    Raises:
        NotFound: the waiver does not exist.
    """
    review_id = Waiver.objects.filter(pk=waiver_id).values_list("review_id", flat=True).first()
    if review_id is None:
        raise WAIVER_STATES.missing()
    review = review_locked(review_id)
    waiver = Waiver.objects.select_related("item").get(pk=waiver_id)
    waiver.review = review
    return waiver


def waiver_set_state(
    *,
    actor: Principal,
    waiver: Waiver,
    state: WaiverState,
    reason: str,
    decision: Authorization | None = None,
    proof: str = "",
) -> None:
    """Change the state of a locked waiver and its item, and record the event.

    Raises:
        WrongState: the transition is not allowed.
    """
    person_id, now = actor.person_id, timezone.now()
    if state in _DECIDED:
        waiver.decided_by_id, waiver.decided_at, waiver.decision_reason = person_id, now, reason
    else:
        waiver.ended_by_id, waiver.ended_at, waiver.end_reason = person_id, now, reason
    WAIVER_STATES.move(
        waiver,
        state,
        actor=actor,
        action=f"waiver:{state.value}",
        subject=review_subject(waiver.review),
        reason=reason,
        department=waiver.review.department.slug,
        data=waiver_event_data(waiver) | ({"proof": proof} if proof else {}),
        decision=decision,
    )
    _item_follows(waiver)


def waiver_event_data(waiver: Waiver) -> dict[str, object]:
    """Return the data of an event about a waiver."""
    return {
        "waiver": waiver.pk,
        "item": waiver.item.code,
        "expires_at": waiver.expires_at.isoformat(),
        "asked_by": waiver.asked_by_id,
        "digest": waiver.digest,
        "round": waiver.round,
    }


def _item_follows(waiver: Waiver) -> None:
    """Update the waiver's item. A closed review keeps its checklist as of the decision."""
    item = waiver.item
    if waiver.state == WaiverState.GRANTED:
        item.state = ChecklistState.WAIVED
    elif (
        item.state == ChecklistState.WAIVED and REVIEW_TRANSITIONS[ReviewState(waiver.review.state)]
    ):
        item.state = ChecklistState.FAILED if item.automatic else ChecklistState.OPEN
    else:
        return
    item.save(update_fields=["state"])


def excused_result(item: ChecklistItem) -> str:
    """Return the result that a new waiver of the item excuses: the note of its check."""
    return item.note if item.automatic else ""


def waivers_carry_over(*, actor: Principal, review: Review, decision: Authorization | None) -> None:
    """Carry waivers into a new round of a locked review whose checklist is written. A waiver stays
    if the digest and the result are the same and its granter has no part in the subject; all others
    end, as attestations do.
    """
    waivers = Waiver.objects.select_related("item").filter(
        review=review, state__in=(WaiverState.REQUESTED, WaiverState.GRANTED)
    )
    for waiver in waivers:
        waiver.review, item = review, waiver.item
        granted = waiver.state == WaiverState.GRANTED
        stays = (
            item.state not in MET_STATES
            and (waiver.digest, waiver.excused) == (review.digest, excused_result(item))
            # Its granter may have answered for the department since.
            and waiver.decided_by_id not in review.excluded_people
        )
        if stays:
            if granted:
                item.state = ChecklistState.WAIVED
                item.save(update_fields=["state"])
            continue
        waiver_set_state(
            actor=actor,
            waiver=waiver,
            state=WaiverState.REVOKED if granted else WaiverState.WITHDRAWN,
            reason="The subject of the review has changed.",
            decision=decision,
        )
