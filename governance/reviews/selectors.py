"""State of a review, and obstacles to actions on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from governance.audit.services import Attempt
from governance.errors import DomainError, InvalidInput, NotFound, NotPermitted, WrongState
from governance.people.models import Role, RoleAssignment
from governance.people.proof import require_proof
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.selectors import visible_to
from governance.policy.services import authorize
from governance.principals import Principal, PrincipalKind, Proof
from governance.reviews.absences.selectors import stands_in_for
from governance.reviews.models import (
    MET_STATES,
    ChecklistItem,
    ChecklistState,
    Review,
    ReviewState,
    Verdict,
)
from governance.reviews.policies.document import document_parsed
from governance.reviews.states import ALLOWED_TRANSITIONS, review_subject
from governance.reviews.threads.models import ReviewThread, ThreadState
from governance.reviews.waivers.models import Waiver, WaiverState

# Verbs for denials to people who had a part in the subject; they may still comment.
_VERBS = {
    Verdict.COMMENT: "",
    Verdict.REQUEST_CHANGES: "request changes to",
    Verdict.APPROVE: "approve",
    Verdict.REJECT: "reject",
}
_DOING = {
    Verdict.REQUEST_CHANGES: "requesting changes to",
    Verdict.APPROVE: "approving",
    Verdict.REJECT: "rejecting",
}
# Most characters of a failed check's note in a sentence.
MAX_NOTE_SHOWN = 300
_UNMET: dict[str, str] = {
    ChecklistState.OPEN: "needs judgment",
    ChecklistState.FAILED: "failed",
    ChecklistState.WAIVED: "its waiver has ended",
}


def votes_from(actor: Principal, review: Review, specialty: str = "") -> datetime | None:
    """Return the end of the actor's waiting time in this review; None if it is over.

    `specialty` selects the role that the time counts from. A deputy does not hold that role, so the
    reviewer role that they have held longest counts. The wait gives others time to notice an
    attacker who created a reviewer or took over the account of one.
    """
    policy = review.review_policy
    hours = document_parsed(policy.text).vote_after_hours if policy is not None else 0
    if not hours or actor.person_id is None:
        return None
    roles = RoleAssignment.objects.filter(person_id=actor.person_id, role=Role.REVIEWER)
    rows = list(
        roles.values_list("specialty", "created_at", "person__created_at", "person__empowered_at")
    )
    matching = [row for row in rows if row[0] == specialty] or rows
    if not matching:
        return None
    _, granted, created, empowered = min(matching, key=lambda row: row[1])
    since = max(granted, created, empowered or created)
    ends = since + timedelta(hours=hours)
    return ends if ends > timezone.now() else None


@dataclass(frozen=True, slots=True)
class Standing:
    """The present round's approvals. Specialties map to counts; `missing` has only those above 0.

    `blocking` checklist items and `unresolved` threads prevent the approval.
    """

    required: Mapping[str, int]
    approvals: Mapping[str, int]
    missing: Mapping[str, int]
    blocking: tuple[ChecklistItem, ...]
    unresolved: tuple[ReviewThread, ...] = ()

    @property
    def complete(self) -> bool:
        """Return whether the quorum is reached and nothing blocks the approval."""
        return not (self.missing or self.blocking or self.unresolved)


def review_resource(review: Review) -> Resource:
    """Return the review as a resource of the policy."""
    return Resource(
        type="review",
        id=str(review.pk),
        name=review.subject_name,
        department=review.department.slug,
        attributes={"tier": review.tier},
    )


def reviews_visible_to(actor: Principal) -> QuerySet[Review]:
    """Return the reviews that the actor may see."""
    reviews = Review.objects.select_related("department", "opened_by", "review_policy")
    return visible_to(actor, Action.RELEASE_VIEW, reviews, resource_type="review")


def review_standing(review: Review) -> Standing:
    """Return the approvals that the present round has and lacks. A person counts once, for one
    specialty.
    """
    votes = review.decisions.filter(
        verdict=Verdict.APPROVE, round=review.round, digest=review.digest
    ).values_list("specialty", flat=True)
    # A prefetched checklist would bring the queries of its people and waivers.
    items = review.checklist.select_related(None).prefetch_related(None)
    blocking = tuple(items.exclude(met()))
    unresolved = tuple(review.threads.filter(state=ThreadState.OPEN, blocking=True))
    return standing_of(review, votes, blocking, unresolved)


def standing_of(
    review: Review,
    votes: Iterable[str],
    blocking: tuple[ChecklistItem, ...],
    unresolved: tuple[ReviewThread, ...] = (),
) -> Standing:
    """Count `votes`, the specialties of the approvals in the present round."""
    approvals = Counter(votes)
    required: dict[str, int] = dict(review.required_approvals)
    missing = {
        specialty: count - approvals[specialty]
        for specialty, count in required.items()
        if count > approvals[specialty]
    }
    return Standing(
        required=required,
        approvals=dict(approvals),
        missing=missing,
        blocking=blocking,
        unresolved=unresolved,
    )


def blocking_items(reviews: Iterable[Review]) -> dict[int, tuple[ChecklistItem, ...]]:
    """Return the checklist items that block an approval by review, with one query."""
    items: dict[int, tuple[ChecklistItem, ...]] = {}
    for item in ChecklistItem.objects.filter(review__in=list(reviews)).exclude(met()):
        items[item.review_id] = (*items.get(item.review_id, ()), item)
    return items


def met() -> Q:
    """Match checklist items that do not block an approval: satisfied, not applicable, or with a
    waiver in force now.
    """
    waivers = Waiver.objects.filter(
        item=OuterRef("pk"),
        digest=OuterRef("review__digest"),
        state=WaiverState.GRANTED,
        expires_at__gt=timezone.now(),
    )
    return Q(state__in=MET_STATES) | Q(Exists(waivers), state=ChecklistState.WAIVED)


def verdict_obstacle_words(actor: Principal, review: Review, verdict: str) -> str:
    """Return the reason that `actor` may not give this verdict now; empty if they may."""
    obstacle = decision_obstacle(actor, review, Verdict(verdict))
    return obstacle.message if obstacle else ""


def decision_obstacle(
    actor: Principal, review: Review, verdict: Verdict, specialty: str = ""
) -> DomainError | None:
    """Return the error that `review_decide` raises for this verdict by `actor`; None if none.

    Checks permission before state: a person who may not decide is told so in any state.
    """
    action = Action.REVIEW_COMMENT if verdict is Verdict.COMMENT else Action.RELEASE_DECIDE
    separation = separation_obstacle(actor, review, _VERBS[verdict], action)
    try:
        authorize(actor=actor, action=action, resource=review_resource(review))
    except NotFound as error:
        return error
    except DomainError as error:
        # For their own work, name separation of duties: no role would help.
        return separation or error
    if separation is not None:
        return separation
    if verdict is Verdict.COMMENT:
        return _closed(review, verdict, commenting=True)
    return (
        _closed(review, verdict)
        or _voted(actor, review)
        or _specialty_obstacle(actor, review, verdict, specialty)
        or waiting_obstacle(actor, review, Action.RELEASE_DECIDE, specialty)
        or (_blocked(review) if verdict is Verdict.APPROVE else None)
        or _unproved(actor, review, verdict)
    )


def waiting_obstacle(
    actor: Principal, review: Review, action: Action, specialty: str = ""
) -> NotPermitted | None:
    """Return the refusal of a vote by an account that is too new; None if it may vote."""
    ends = votes_from(actor, review, specialty)
    if ends is None:
        return None
    return _refusal(
        actor,
        review,
        f"{actor.name} is new as a reviewer and may vote from {ends:%-d %B %Y, %H:%M} UTC "
        f"on; review policy {review.review_policy} makes new and newly empowered accounts wait.",
        "Wait until then, or ask another reviewer.",
        "vote_wait",
        action,
    )


def _unproved(actor: Principal, review: Review, verdict: Verdict) -> NotPermitted | None:
    """Return the refusal for a missing second factor; None if there is a fresh one."""
    try:
        proof_for(actor, review, verdict)
    except NotPermitted as error:
        return error
    return None


def proof_for(actor: Principal, review: Review, verdict: Verdict) -> Proof:
    """Return the fresh proof for the vote. Raises as `require_proof`."""
    doing = f"{_DOING[verdict]} review {review.pk} of {review.subject_name}"
    return require_proof(actor, doing, attempt=_attempt(actor, review, Action.RELEASE_DECIDE))


def _refusal(
    actor: Principal, review: Review, sentence: str, hint: str, code: str, action: Action
) -> NotPermitted:
    return NotPermitted(sentence, hint=hint, code=code, attempt=_attempt(actor, review, action))


def _attempt(actor: Principal, review: Review, action: Action) -> Attempt:
    return Attempt(
        actor=actor,
        action=action.value,
        subject=review_subject(review),
        department=review.department.slug,
    )


def separation_obstacle(
    actor: Principal, review: Review, verb: str, action: Action
) -> NotPermitted | None:
    """Return the refusal if the actor is not a person, or had a part in the subject; else None.

    `verb` is the forbidden action, such as "approve"; if empty, any person may do it.
    """
    what = f"review {review.pk} of {review.subject_name}"
    hint = "Someone who had no part in it must decide; you can still comment."
    if actor.kind is not PrincipalKind.PERSON or actor.person_id is None:
        why = f"{actor.name} is not a person; only people can comment or decide in {what}"
        hint = "Sign in, or use a personal access token."
    elif not verb:
        return None
    elif actor.person_id == review.opened_by_id:
        why = f"{actor.name} submitted {what} and may not {verb} it"
    elif actor.person_id in review.excluded_people:
        why = f"{actor.name} had a part in the subject of {what} and may not {verb} it"
    else:
        return None
    sentence = f"Separation of duties: {why}."
    return _refusal(actor, review, sentence, hint, "separation_of_duties", action)


def speaker_id(actor: Principal) -> int:
    """Return the actor's person ID. Raises NotPermitted if the actor is not a person."""
    if actor.person_id is None:
        raise NotPermitted(
            f"{actor.name} is not a person; only people can comment or decide in a review.",
            code="person_required",
            hint="Sign in, or use a personal access token.",
        )
    return actor.person_id


def _closed(review: Review, verdict: Verdict, *, commenting: bool = False) -> WrongState | None:
    state = ReviewState(review.state)
    if state is ReviewState.OPEN or (commenting and ALLOWED_TRANSITIONS[state]):
        return None
    act = "take a comment" if commenting else f"take the verdict “{verdict.label.lower()}”"
    hint = "That state is final."
    if ALLOWED_TRANSITIONS[state]:
        hint = f"It is open again once department {review.department.slug} has answered."
    return WrongState(
        f"Review {review.pk} of {review.subject_name} is {state.label.lower()}; it cannot {act}.",
        hint=hint,
    )


def _voted(actor: Principal, review: Review) -> WrongState | None:
    votes = review.decisions.exclude(verdict=Verdict.COMMENT).filter(round=review.round)
    voters = list(votes.values_list("person_id", "in_place_of_id"))
    if actor.person_id in {absent for _, absent in voters}:
        return WrongState(
            f"A deputy has voted in the place of {actor.name} in round {review.round} of review "
            f"{review.pk} of {review.subject_name}; a second vote is refused.",
            hint="Each role has one vote per round. You can still comment.",
        )
    if actor.person_id not in {person for person, _ in voters}:
        return None
    return WrongState(
        f"{actor.name} has voted in round {review.round} of review {review.pk} of "
        f"{review.subject_name}; a second vote is refused.",
        hint="Each person has one vote per round. You can still comment.",
    )


def _specialty_obstacle(
    actor: Principal, review: Review, verdict: Verdict, specialty: str
) -> DomainError | None:
    specialties = actor.specialties
    required = sorted(review.required_approvals)
    possible = {specialty} if specialty else set(required)
    if not specialties & possible:
        specialties |= stands_in_for(actor, review).keys()
    if specialty and specialty not in specialties:
        sentence = f"{actor.name} does not review for {specialty[:40]}"
    elif verdict is Verdict.APPROVE and not specialties & possible:
        sentence = f"{actor.name} reviews for {', '.join(sorted(specialties))}"
    elif verdict is Verdict.APPROVE and specialty and specialty not in required:
        sentence = f"An approval for {specialty} is not required"
    else:
        return None
    return _refusal(
        actor,
        review,
        f"{sentence}; review {review.pk} of {review.subject_name} needs approval for "
        f"{' and '.join(required)}.",
        "An administrator grants specialties.",
        "specialty_missing",
        Action.RELEASE_DECIDE,
    )


def specialty_for(actor: Principal, review: Review, verdict: Verdict, requested: str) -> str:
    """Return the specialty that a vote counts for: the requested one, or the only possible one.

    Specialties that still lack approvals take precedence.

    Raises:
        InvalidInput: several are possible, and none was requested.
    """
    if requested:
        return requested
    specialties = actor.specialties | stands_in_for(actor, review).keys()
    fitting = specialties & set(review.required_approvals)
    if verdict is Verdict.APPROVE:
        fitting = (fitting & set(review_standing(review).missing)) or fitting
        if len(fitting) > 1:
            choice = " or ".join(sorted(fitting))
            raise InvalidInput(
                f"{actor.name} reviews for several specialties; say whether the approval is for "
                f"{choice}.",
                hint="One person approves once in a round, for one specialty.",
                fields={"specialty": [f"is {choice}"]},
            )
    return min(fitting or specialties)


def _blocked(review: Review) -> WrongState | None:
    standing = review_standing(review)
    unmet = [f"{item.title} ({_reason(item)})" for item in standing.blocking]
    hint = "Attest open items; failed ones need a changed release or a waiver." if unmet else ""
    if standing.unresolved:
        unmet.append(_counted(standing.unresolved))
        hint = hint or "The person who began a thread, or another reviewer, can resolve it."
    if not unmet:
        return None
    return WrongState(
        f"Review {review.pk} of {review.subject_name} cannot be approved: {'; '.join(unmet)}.",
        code="checklist_unmet" if standing.blocking else "threads_unresolved",
        hint=hint,
    )


def _reason(item: ChecklistItem) -> str:
    """Return the reason that an item blocks, with the note of a failed check."""
    reason = _UNMET[item.state]
    note = item.note.rstrip(".")[:MAX_NOTE_SHOWN]
    return f"{reason}: {note}" if item.state == ChecklistState.FAILED and note else reason


def _counted(threads: tuple[ReviewThread, ...]) -> str:
    numbers = ", ".join(str(thread.pk) for thread in threads[:5])
    if len(threads) == 1:
        return f"thread {numbers} is not resolved"
    more = ", …" if len(threads) > 5 else ""
    return f"{len(threads)} threads are not resolved ({numbers}{more})"
