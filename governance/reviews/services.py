"""Reviews: open, decide, answer, close. Generic: the subject is a type, an ID and a name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.errors import InvalidInput, WrongState
from governance.people.credentials import with_sign_in_admins
from governance.people.models import Department, Specialty
from governance.people.proof import proof_facts
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.engine import Resource
from governance.policy.services import authorize
from governance.principals import Principal
from governance.reviews.absences.selectors import stands_in_for
from governance.reviews.checklist import ChecklistEntry, checklist_write
from governance.reviews.logged_conditions import conditions_logged
from governance.reviews.models import (
    REASON_MAX,
    ChecklistState,
    Decision,
    Review,
    ReviewState,
    Verdict,
)
from governance.reviews.policies.models import ReviewPolicy
from governance.reviews.selectors import (
    decision_obstacle,
    proof_for,
    review_resource,
    review_standing,
    speaker_id,
    specialty_for,
    waiting_obstacle,
)
from governance.reviews.states import review_locked, review_set_state, review_subject
from governance.reviews.texts import text_checked
from governance.reviews.threads.drafts import drafts_submit
from governance.reviews.threads.limits import check_room
from governance.reviews.waivers.states import waivers_carry_over


def review_open(
    *,
    actor: Principal,
    subject: Subject,
    department: Department,
    tier: str,
    digest: str,
    required_approvals: dict[str, int],
    excluded_people: Sequence[int],
    checklist: Sequence[ChecklistEntry],
    due_at: datetime,
    review_policy: ReviewPolicy | None = None,
) -> Review:
    """Open a review of one digest. The submitter and excluded people never decide.

    Raises:
        InvalidInput: the quorum is missing (there is no default), or has an unknown specialty.
        NotPermitted: the policy denies it, or the actor is not a person.
        WrongState: the subject has an open review.
    """
    _check_quorum(required_approvals)
    with transaction.atomic():
        decision = authorize(
            actor=actor,
            action=Action.RELEASE_SUBMIT,
            resource=Resource("review", name=subject.name, department=department.slug),
        )
        submitter_id = speaker_id(actor)
        try:
            with transaction.atomic():
                review = Review.objects.create(
                    subject_type=subject.type,
                    subject_id=subject.id,
                    subject_name=subject.name,
                    department=department,
                    tier=tier,
                    digest=digest,
                    required_approvals=required_approvals,
                    excluded_people=sorted(with_sign_in_admins({*excluded_people, submitter_id})),
                    policy_version=decision.policy_version,
                    review_policy=review_policy,
                    opened_by_id=submitter_id,
                    due_at=due_at,
                )
        except IntegrityError as error:
            raise WrongState(
                f"{subject.type.capitalize()} {subject.name} is under review already; "
                "a second review cannot be opened."
            ) from error
        checklist_write(review, checklist)
        audit_record(
            actor=actor,
            action="review:opened",
            subject=review_subject(review),
            department=department.slug,
            data={
                "digest": digest,
                "required_approvals": required_approvals,
                "excluded_people": review.excluded_people,
                "subject": f"{subject.type} {subject.id}",
                "review_policy": str(review_policy) if review_policy else None,
            },
            decision=decision,
        )
    return review


def _check_quorum(required_approvals: dict[str, int]) -> None:
    unknown = set(required_approvals) - set(Specialty.values)
    short = [name for name, count in required_approvals.items() if count < 1]
    if not required_approvals or unknown or short:
        raise InvalidInput(
            "A review needs at least one approval for at least one known specialty; "
            f"the request has {required_approvals or 'none'}.",
            fields={"required_approvals": ["names specialties with counts of 1 or more"]},
        )


def review_decide(
    *,
    actor: Principal,
    review_id: int,
    verdict: str,
    reason: str,
    digest: str,
    specialty: str = "",
    conditions: Mapping[str, Any] | None = None,
    submit_drafts: bool = True,
) -> Review:
    """Record a decision on one digest; the last missing approval approves the review.

    `conditions` belong to an approval; the caller has validated them. `submit_drafts`: also submit
    the actor's drafts in the review's threads.

    Raises:
        InvalidInput: an unknown verdict, no reason, conditions without an approval, or an approval
            that could count for several specialties.
        NotFound, NotPermitted: the policy or separation of duties forbids it, or a vote lacks a
            fresh second factor; the error has the attempt.
        WrongState: the review is closed or has another digest; the actor has voted or commented too
            often; or checklist items or threads block an approval.
    """
    kind = _verdict(verdict)
    reason = text_checked(reason, "reason", REASON_MAX)
    if conditions and kind is not Verdict.APPROVE:
        raise InvalidInput(
            f"The verdict “{kind.label.lower()}” takes no conditions; only an approval does.",
            fields={"conditions": ["belong to an approval"]},
        )
    with transaction.atomic():
        review = review_locked(review_id)
        obstacle = decision_obstacle(actor, review, kind, specialty)
        if obstacle is not None:
            raise obstacle
        action = Action.REVIEW_COMMENT if kind is Verdict.COMMENT else Action.RELEASE_DECIDE
        authorization = authorize(actor=actor, action=action, resource=review_resource(review))
        _check_digest(review, digest)
        if kind is Verdict.COMMENT:
            check_room(actor, review)
        else:
            specialty = specialty_for(actor, review, kind, specialty)
            waiting = waiting_obstacle(actor, review, Action.RELEASE_DECIDE, specialty)
            if waiting is not None:
                raise waiting
        decision = _decision_write(
            actor, review, kind, reason, specialty, conditions or {}, authorization=authorization
        )
        if submit_drafts:
            drafts_submit(actor=actor, review=review, decision=decision)
        return _follow(actor, review, kind, reason, authorization)


def _decision_write(
    actor: Principal,
    review: Review,
    verdict: Verdict,
    reason: str,
    specialty: str,
    conditions: Mapping[str, Any] = MappingProxyType({}),
    *,
    authorization: Authorization,
) -> Decision:
    comment = verdict is Verdict.COMMENT
    now = timezone.now()
    proof = None if comment else proof_for(actor, review, verdict)
    decision = Decision.objects.create(
        review=review,
        submitter_id=review.opened_by_id,
        person_id=speaker_id(actor),
        verdict=verdict,
        specialty="" if comment else specialty,
        in_place_of_id=None if comment else stands_in_for(actor, review).get(specialty),
        reason=reason,
        conditions=dict(conditions),
        digest=review.digest,
        round=review.round,
        proof_method=proof.method if proof else "",
        proved_at=min(proof.at, now) if proof else None,
        created_at=now,
    )
    audit_record(
        actor=actor,
        action=Action.REVIEW_COMMENT if comment else Action.RELEASE_DECIDE,
        subject=review_subject(review),
        reason=reason,
        department=review.department.slug,
        data={
            "verdict": verdict.value,
            "specialty": decision.specialty,
            "in_place_of": decision.in_place_of_id,
            "digest": review.digest,
            "round": review.round,
            "subject": f"{review.subject_type} {review.subject_id}",
            **({"conditions": conditions_logged(conditions)} if conditions else {}),
            **proof_facts(proof),
        },
        decision=authorization,
    )
    return decision


def _follow(
    actor: Principal, review: Review, verdict: Verdict, reason: str, authorization: Authorization
) -> Review:
    """Change the review's state as the decision requires."""
    if verdict is Verdict.REQUEST_CHANGES:
        state = ReviewState.CHANGES_REQUESTED
    elif verdict is Verdict.REJECT:
        state = ReviewState.REJECTED
    elif verdict is Verdict.APPROVE and review_standing(review).complete:
        state = ReviewState.APPROVED
    else:
        return review
    return review_set_state(
        actor=actor,
        review_id=review.pk,
        state=state,
        reason=reason,
        decision=authorization,
    )


def review_answer(
    *,
    actor: Principal,
    review_id: int,
    digest: str,
    message: str,
    checklist: Sequence[ChecklistEntry] = (),
    excluded_people: Collection[int] = (),
) -> Review:
    """Answer requested changes for the department, which begins a new round on `digest`.

    Votes of earlier rounds no longer count. A new digest withdraws all attestations; the same
    digest, only those by people who have had a part in it since.
    `checklist` replaces items with the same codes; `excluded_people` are added to the review's.

    Raises:
        InvalidInput: the message is missing.
        NotFound, NotPermitted: the policy denies it.
        WrongState: no changes are requested.
    """
    message = text_checked(message, "message", REASON_MAX)
    with transaction.atomic():
        review = review_locked(review_id)
        decision = authorize(
            actor=actor, action=Action.RELEASE_SUBMIT, resource=review_resource(review)
        )
        answering_id = speaker_id(actor)
        if review.state != ReviewState.CHANGES_REQUESTED:
            raise WrongState(
                f"Review {review.pk} of {review.subject_name} is "
                f"{ReviewState(review.state).label.lower()}; there is nothing to answer.",
                hint="An answer follows a request for changes.",
            )
        # People who changed the subject have had a part in it.
        excluded = sorted(
            {*review.excluded_people, *with_sign_in_admins({*excluded_people, answering_id})}
        )
        attested = review.checklist.filter(automatic=False)
        if digest == review.digest:
            # Withdraw attestations by people who are excluded now: no one else checked those items.
            attested = attested.filter(attested_by__in=excluded)
        attested.update(
            state=ChecklistState.OPEN,
            note="",
            digest="",
            attested_by=None,
            attested_at=None,
            carried_from=None,
        )
        review.round += 1
        review.digest = digest
        review.excluded_people = excluded
        review.save(update_fields=["round", "digest", "excluded_people"])
        checklist_write(review, checklist)
        waivers_carry_over(actor=actor, review=review, decision=decision)
        _decision_write(actor, review, Verdict.COMMENT, message, "", authorization=decision)
        return review_set_state(
            actor=actor,
            review_id=review.pk,
            state=ReviewState.OPEN,
            reason=message,
            decision=decision,
        )


def review_close(*, actor: Principal, review_id: int, state: str, reason: str) -> Review:
    """End a review without a decision: `withdrawn` by its department, or `voided`.

    A review is voided if its subject is gone; the caller has authorized that.

    Raises:
        InvalidInput: another state, or no reason.
        NotFound, NotPermitted: the policy denies the withdrawal.
        WrongState: the review is closed.
    """
    if state not in {ReviewState.WITHDRAWN, ReviewState.VOIDED}:
        raise InvalidInput(
            f"A review is closed as withdrawn or voided, not as {state[:40]}.",
            fields={"state": ["is withdrawn or voided"]},
        )
    reason = text_checked(reason, "reason", REASON_MAX)
    with transaction.atomic():
        review = review_locked(review_id)
        decision = None
        if state == ReviewState.WITHDRAWN:
            decision = authorize(
                actor=actor, action=Action.RELEASE_WITHDRAW, resource=review_resource(review)
            )
        return review_set_state(
            actor=actor,
            review_id=review.pk,
            state=ReviewState(state),
            reason=reason,
            decision=decision,
        )


def _verdict(text: str) -> Verdict:
    if text not in Verdict.values:
        raise InvalidInput(
            f"{text[:40]!r} is not a verdict." if text else "Choose a verdict.",
            fields={"verdict": [f"is one of {', '.join(Verdict.values)}"]},
        )
    return Verdict(text)


def _check_digest(review: Review, digest: str) -> None:
    if digest != review.digest:
        raise WrongState(
            f"Review {review.pk} of {review.subject_name} is about {review.digest[:12]}…, "
            f"not {digest[:12]}…; the decision was not taken.",
            code="digest_mismatch",
            hint="The subject of the review has changed; read it again, then decide.",
        )
