"""State of a review, and the actions that people may take on it."""

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

# Actions forbidden to people who had a part in it; they may still comment.
_ASKED = {
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
    """Return the end of the actor's waiting time in this review; None if none is left.

    With `specialty`, of a vote for it: a deputy, who does not hold it, votes by the reviewer role
    that they have held longest. The wait leaves others time to notice an attacker who made a
    reviewer or took one's account over.
    """
    policy = review.review_policy
    hours = document_parsed(policy.text).vote_after_hours if policy is not None else 0
    if not hours or actor.person_id is None:
        return None
    held = RoleAssignment.objects.filter(person_id=actor.person_id, role=Role.REVIEWER)
    rows = list(
        held.values_list("specialty", "created_at", "person__created_at", "person__empowered_at")
    )
    named = [row for row in rows if row[0] == specialty] or rows
    if not named:
        return None
    _, granted, created, empowered = min(named, key=lambda row: row[1])
    since = max(granted, created, empowered or created)
    ends = since + timedelta(hours=hours)
    return ends if ends > timezone.now() else None


@dataclass(frozen=True, slots=True)
class Standing:
    """The present round's tally. Specialties map to counts; `missing` holds only what is short.

    `blocking` are the checklist items that keep an approval from being given, and `unresolved` the
    threads that do.
    """

    required: Mapping[str, int]
    given: Mapping[str, int]
    missing: Mapping[str, int]
    blocking: tuple[ChecklistItem, ...]
    unresolved: tuple[ReviewThread, ...] = ()

    @property
    def complete(self) -> bool:
        """True when the quorum is reached and nothing blocks."""
        return not (self.missing or self.blocking or self.unresolved)


def review_resource(review: Review) -> Resource:
    """A review as the policy sees it."""
    return Resource(
        type="review",
        id=str(review.pk),
        name=review.subject_name,
        department=review.department.slug,
        attributes={"tier": review.tier},
    )


def reviews_visible_to(actor: Principal) -> QuerySet[Review]:
    """The reviews that `actor` may see."""
    reviews = Review.objects.select_related("department", "opened_by", "review_policy")
    return visible_to(actor, Action.RELEASE_VIEW, reviews, resource_type="review")


def review_standing(review: Review) -> Standing:
    """Return the approvals that the present round has and lacks. One person counts once, for one
    specialty.
    """
    votes = review.decisions.filter(
        verdict=Verdict.APPROVE, round=review.round, digest=review.digest
    ).values_list("specialty", flat=True)
    blocking = tuple(review.checklist.exclude(met()))
    unresolved = tuple(review.threads.filter(state=ThreadState.OPEN, blocking=True))
    return standing_of(review, votes, blocking, unresolved)


def standing_of(
    review: Review,
    votes: Iterable[str],
    blocking: tuple[ChecklistItem, ...],
    unresolved: tuple[ReviewThread, ...] = (),
) -> Standing:
    """The tally of `votes`, each the specialty of an approval that counts in the present round."""
    given = Counter(votes)
    required: dict[str, int] = dict(review.required_approvals)
    missing = {
        specialty: count - given[specialty]
        for specialty, count in required.items()
        if count > given[specialty]
    }
    return Standing(
        required=required,
        given=dict(given),
        missing=missing,
        blocking=blocking,
        unresolved=unresolved,
    )


def blocking_items(reviews: Iterable[Review]) -> dict[int, tuple[ChecklistItem, ...]]:
    """The checklist items that block an approval, by review, in one query."""
    found: dict[int, tuple[ChecklistItem, ...]] = {}
    for item in ChecklistItem.objects.filter(review__in=list(reviews)).exclude(met()):
        found[item.review_id] = (*found.get(item.review_id, ()), item)
    return found


def met() -> Q:
    """Checklist items that block no approval: satisfied, not applicable, or waived by a waiver that
    is in force now.
    """
    waivers = Waiver.objects.filter(
        item=OuterRef("pk"),
        digest=OuterRef("review__digest"),
        state=WaiverState.GRANTED,
        expires_at__gt=timezone.now(),
    )
    return Q(state__in=MET_STATES) | Q(Exists(waivers), state=ChecklistState.WAIVED)


def why_not(actor: Principal, review: Review, verdict: str) -> str:
    """Return the reason that `actor` may not give this verdict now; empty if they may."""
    obstacle = decision_obstacle(actor, review, Verdict(verdict))
    return obstacle.message if obstacle else ""


def decision_obstacle(
    actor: Principal, review: Review, verdict: Verdict, specialty: str = ""
) -> DomainError | None:
    """Return the obstacle to the verdict for `actor`: the error that `review_decide` raises.

    Checks permission before state: a person who may not decide is told so in any state.
    """
    action = Action.REVIEW_COMMENT if verdict is Verdict.COMMENT else Action.RELEASE_DECIDE
    separation = separation_obstacle(actor, review, _ASKED[verdict], action)
    try:
        authorize(actor=actor, action=action, resource=review_resource(review))
    except NotFound as error:
        return error
    except DomainError as error:
        # Whose own work it is learns of the separation, which no role would lift.
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
    """The refusal of a vote by an account that is too new for the review's policy."""
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
    """Last: what more than a second factor would keep them from is said first."""
    try:
        proof_for(actor, review, verdict)
    except NotPermitted as error:
        return error
    return None


def proof_for(actor: Principal, review: Review, verdict: Verdict) -> Proof:
    """The fresh proof that goes with the vote. Raises as `require_proof`."""
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
    actor: Principal, review: Review, asked: str, action: Action
) -> NotPermitted | None:
    """The refusal for whoever submitted or made what is under review, or is no person.

    `asked` is what they may not do, such as "approve"; empty for what only asks for a person.
    """
    what = f"review {review.pk} of {review.subject_name}"
    hint = "Someone who had no part in it decides; commenting is possible."
    if actor.kind is not PrincipalKind.PERSON or actor.person_id is None:
        why = f"{actor.name} is not a person; only people can comment or decide in {what}"
        hint = "Sign in, or use a personal access token."
    elif not asked:
        return None
    elif actor.person_id == review.opened_by_id:
        why = f"{actor.name} submitted {what} and may not {asked} it"
    elif actor.person_id in review.excluded_people:
        why = f"{actor.name} had a part in what {what} is about and may not {asked} it"
    else:
        return None
    sentence = f"Separation of duties: {why}."
    return _refusal(actor, review, sentence, hint, "separation_of_duties", action)


def speaker_id(actor: Principal) -> int:
    """The person who speaks in a review. Raises NotPermitted for whoever is no person."""
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
    asked = "take a comment" if commenting else f"take the verdict “{verdict.label.lower()}”"
    hint = "That state is final."
    if ALLOWED_TRANSITIONS[state]:
        hint = f"It is open again once department {review.department.slug} has answered."
    return WrongState(
        f"Review {review.pk} of {review.subject_name} is {state.label.lower()}; it cannot {asked}.",
        hint=hint,
    )


def _voted(actor: Principal, review: Review) -> WrongState | None:
    votes = review.decisions.exclude(verdict=Verdict.COMMENT).filter(round=review.round)
    spoken = list(votes.values_list("person_id", "in_place_of_id"))
    if actor.person_id in {absent for _, absent in spoken}:
        return WrongState(
            f"A deputy has voted in the place of {actor.name} in round {review.round} of review "
            f"{review.pk} of {review.subject_name}; a second vote is refused.",
            hint="Each role has one vote per round. You can still comment.",
        )
    if actor.person_id not in {person for person, _ in spoken}:
        return None
    return WrongState(
        f"{actor.name} has voted in round {review.round} of review {review.pk} of "
        f"{review.subject_name}; a second vote is refused.",
        hint="Each person has one vote per round. You can still comment.",
    )


def _specialty_obstacle(
    actor: Principal, review: Review, verdict: Verdict, specialty: str
) -> DomainError | None:
    held = actor.specialties
    required = sorted(review.required_approvals)
    if not held & ({specialty} if specialty else set(required)):
        held |= stands_in_for(actor, review).keys()
    if specialty and specialty not in held:
        sentence = f"{actor.name} does not review for {specialty[:40]}"
    elif verdict is Verdict.APPROVE and not held & ({specialty} if specialty else set(required)):
        sentence = f"{actor.name} reviews for {', '.join(sorted(held))}"
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


def specialty_for(actor: Principal, review: Review, verdict: Verdict, stated: str) -> str:
    """The one specialty that a vote counts for: the stated one, or the only one it can be.

    Specialties that still lack approvals come before those that do not.

    Raises:
        InvalidInput: it could be several, and none was stated.
    """
    if stated:
        return stated
    held = actor.specialties | stands_in_for(actor, review).keys()
    fitting = held & set(review.required_approvals)
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
    return min(fitting or held)


def _blocked(review: Review) -> WrongState | None:
    standing = review_standing(review)
    unmet = [f"{item.title} ({_reason(item)})" for item in standing.blocking]
    hint = "Attest what is open; what failed needs a changed release, or a waiver." if unmet else ""
    if standing.unresolved:
        unmet.append(_counted(standing.unresolved))
        hint = hint or "Whoever began a thread resolves it, or another reviewer."
    if not unmet:
        return None
    return WrongState(
        f"Review {review.pk} of {review.subject_name} cannot be approved: {'; '.join(unmet)}.",
        code="checklist_unmet" if standing.blocking else "threads_unresolved",
        hint=hint,
    )


def _reason(item: ChecklistItem) -> str:
    """Return why an item blocks, with what a failed check found."""
    reason = _UNMET[item.state]
    found = item.note.rstrip(".")[:MAX_NOTE_SHOWN]
    return f"{reason}: {found}" if item.state == ChecklistState.FAILED and found else reason


def _counted(threads: tuple[ReviewThread, ...]) -> str:
    numbers = ", ".join(str(thread.pk) for thread in threads[:5])
    if len(threads) == 1:
        return f"thread {numbers} is not resolved"
    more = ", …" if len(threads) > 5 else ""
    return f"{len(threads)} threads are not resolved ({numbers}{more})"
