"""Waivers that count now, and obstacles to requesting one or deciding on it."""

from __future__ import annotations

from datetime import datetime

from django.db.models import Min, Prefetch, QuerySet

from governance.audit.services import Attempt
from governance.database.narrow import narrowed, own_columns
from governance.errors import DomainError, NotFound, NotPermitted, WrongState
from governance.people.credentials import with_sign_in_admins
from governance.people.proof import require_proof
from governance.permissions import Action
from governance.policy.services import authorize
from governance.principals import Principal
from governance.reviews.models import MET_STATES, ChecklistItem, ChecklistState, Review, ReviewState
from governance.reviews.selectors import review_resource, separation_obstacle
from governance.reviews.states import review_subject
from governance.reviews.waivers.models import Waiver, WaiverState

# Most waivers of one item, because an evidence pack contains all of them.
WAIVERS_MAX = 20


def checklist_prefetch() -> Prefetch[str, QuerySet[ChecklistItem], str]:
    """Return a prefetch of a review's checklist with its attesters and waivers, newest last."""
    people = ("asked_by__name", "decided_by__name", "ended_by__name")
    waivers = narrowed(Waiver.objects.all(), *own_columns(Waiver), *people)
    items = ChecklistItem.objects.select_related("attested_by", "carried_from").prefetch_related(
        Prefetch("waivers", queryset=waivers)
    )
    return Prefetch("checklist", queryset=items)


def waiver_find(review: Review | None, waiver_id: int) -> Waiver:
    """Return a waiver of this review. Raises NotFound if the review has no such waiver."""
    waiver = Waiver.objects.filter(pk=waiver_id, review=review).first() if review else None
    if waiver is None:
        raise NotFound(f"Waiver {waiver_id} does not exist in a review that you may see.")
    return waiver


def waived_until(review: Review) -> datetime | None:
    """Return the earliest end of the waivers that the checklist uses; None without waivers."""
    end: datetime | None = Waiver.objects.filter(
        review=review,
        state=WaiverState.GRANTED,
        item__state=ChecklistState.WAIVED,
    ).aggregate(first=Min("expires_at"))["first"]
    return end


def request_obstacle(actor: Principal, review: Review, item: ChecklistItem) -> DomainError | None:
    """Return the error that prevents `actor` from requesting a waiver of `item`."""
    action = Action.WAIVER_REQUEST
    try:
        authorize(actor=actor, action=action, resource=review_resource(review))
    except DomainError as error:
        return error
    return separation_obstacle(actor, review, "", action) or item_obstacle(review, item)


def item_obstacle(review: Review, item: ChecklistItem) -> WrongState | None:
    """Return the error that prevents everyone from requesting a waiver of `item`."""
    target = f"“{item.title}” of review {review.pk} of {review.subject_name}"
    if not item.waivable:
        return WrongState(
            f"{target} is never waived.",
            code="never_waived",
            hint="Bytes and origin must always be those that were approved.",
        )
    if review.state != ReviewState.OPEN:
        state = ReviewState(review.state).label.lower()
        return WrongState(f"{target} cannot be waived: the review is {state}.")
    if item.state in MET_STATES:
        return WrongState(f"{target} is met; there is nothing to waive.")
    waivers = [waiver.state for waiver in item.waivers.all()]
    if {WaiverState.REQUESTED, WaiverState.GRANTED} & set(waivers):
        return WrongState(
            f"{target} already has a requested or granted waiver; it cannot have a second one.",
            hint="Decide, withdraw or revoke that one first.",
        )
    if len(waivers) >= WAIVERS_MAX:
        return WrongState(f"{target} had {WAIVERS_MAX} waivers; no more are possible.")
    return None


def decision_obstacle(actor: Principal, waiver: Waiver) -> DomainError | None:
    """Return the error that prevents `actor` from deciding. Checks permission, separation of duties
    and state; last the fresh second factor, which the actor can still give.
    """
    review, action = waiver.review, Action.WAIVER_DECIDE
    separation = separation_obstacle(actor, review, "decide on a waiver in", action)
    if separation is None and actor.person_id in with_sign_in_admins({waiver.asked_by_id}):
        separation = _refused(
            actor,
            review,
            f"Separation of duties: {actor.name} requested the waiver of “{waiver.item.title}”, or "
            "set up the account that did, and may not decide on it.",
            "A second person decides.",
            "separation_of_duties",
        )
    try:
        authorize(actor=actor, action=action, resource=review_resource(review))
    except NotFound as error:
        return error
    except DomainError as error:
        return separation or error
    return separation or _undecidable(waiver) or _unfit(actor, review) or _unproved(actor, waiver)


def _undecidable(waiver: Waiver) -> WrongState | None:
    review, subject = waiver.review, f"The waiver of “{waiver.item.title}”"
    if waiver.state != WaiverState.REQUESTED:
        state = WaiverState(waiver.state).label.lower()
        return WrongState(f"{subject} is {state}; there is nothing to decide.")
    if review.state != ReviewState.OPEN:
        state = ReviewState(review.state).label.lower()
        return WrongState(f"{subject} cannot be decided: review {review.pk} is {state}.")
    return None


def _unfit(actor: Principal, review: Review) -> NotPermitted | None:
    required = sorted(review.required_approvals)
    if actor.specialties & set(required):
        return None
    return _refused(
        actor,
        review,
        f"Review {review.pk} of {review.subject_name} needs {' and '.join(required)}. Only "
        f"reviewers for these decide on its waivers; {actor.name} is not one.",
        "An administrator grants specialties.",
        "specialty_missing",
    )


def _unproved(actor: Principal, waiver: Waiver) -> NotPermitted | None:
    try:
        proof_for(actor, waiver)
    except NotPermitted as error:
        return error
    return None


def proof_for(actor: Principal, waiver: Waiver) -> str:
    """Return the method of the fresh proof for a decision. Raises as `require_proof`."""
    doing = f"deciding on a waiver in review {waiver.review_id}"
    return require_proof(actor, doing, attempt=_attempt(actor, waiver.review)).method


def _refused(actor: Principal, review: Review, sentence: str, hint: str, code: str) -> NotPermitted:
    return NotPermitted(sentence, hint=hint, code=code, attempt=_attempt(actor, review))


def _attempt(actor: Principal, review: Review) -> Attempt:
    return Attempt(
        actor=actor,
        action=Action.WAIVER_DECIDE.value,
        subject=review_subject(review),
        department=review.department.slug,
    )
