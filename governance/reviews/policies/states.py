"""Transitions of a review policy, and the one function that moves it."""

from __future__ import annotations

from collections.abc import Callable

from django.db import connection, transaction
from django.utils import timezone

from governance.audit.services import Subject
from governance.people.proof import proof_facts
from governance.policy.decisions import Authorization
from governance.policy.engine import Resource
from governance.principals import Principal, Proof
from governance.reviews.policies.models import ReviewPolicy, ReviewPolicyState
from governance.state_machine import StateMachine

ALLOWED_TRANSITIONS: dict[ReviewPolicyState, frozenset[ReviewPolicyState]] = {
    ReviewPolicyState.DRAFT: frozenset({ReviewPolicyState.PROPOSED, ReviewPolicyState.WITHDRAWN}),
    ReviewPolicyState.PROPOSED: frozenset(
        {ReviewPolicyState.ACTIVE, ReviewPolicyState.REJECTED, ReviewPolicyState.WITHDRAWN}
    ),
    ReviewPolicyState.ACTIVE: frozenset({ReviewPolicyState.SUPERSEDED}),
    ReviewPolicyState.SUPERSEDED: frozenset(),
    ReviewPolicyState.REJECTED: frozenset(),
    ReviewPolicyState.WITHDRAWN: frozenset(),
}
REVIEW_POLICY_STATES = StateMachine(
    model=ReviewPolicy,
    noun="review policy",
    table=ALLOWED_TRANSITIONS,
    hint="draft a new version from what it says",
    label=str,
)
_ACTIONS = {
    ReviewPolicyState.PROPOSED: "review_policy:propose",
    ReviewPolicyState.ACTIVE: "review_policy:activate",
    ReviewPolicyState.SUPERSEDED: "review_policy:supersede",
    ReviewPolicyState.REJECTED: "review_policy:reject",
    ReviewPolicyState.WITHDRAWN: "review_policy:withdraw",
}
ActivationFollower = Callable[[Principal, ReviewPolicy, Authorization | None], None]
_followers: list[ActivationFollower] = []
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('assay:review_policy'))"


def review_policy_subject(policy: ReviewPolicy) -> Subject:
    """The policy as the audit log names it."""
    return Subject("review_policy", str(policy.pk), str(policy))


def review_policy_resource(policy: ReviewPolicy) -> Resource:
    """The policy as the rules of access see it."""
    return Resource("review_policy", id=str(policy.pk), name=policy.name)


def review_policies_lock() -> None:
    """Whoever changes review policies goes alone until the transaction ends: of two at once one
    waits, and then sees what the other did.
    """
    with connection.cursor() as cursor:
        cursor.execute(_LOCK)


def review_policy_locked(policy_id: int) -> ReviewPolicy:
    """Lock all policies until the transaction ends, and return this one.

    Raises:
        NotFound: there is none.
    """
    review_policies_lock()
    return REVIEW_POLICY_STATES.locked(policy_id)


def review_policy_set_state(
    *,
    actor: Principal,
    policy: ReviewPolicy,
    state: ReviewPolicyState,
    reason: str = "",
    decision: Authorization | None = None,
    proof: Proof | None = None,
) -> ReviewPolicy:
    """Check, move and audit a policy that `review_policy_locked` gave. Proposing and deciding are
    signed.

    Raises:
        WrongState: the table allows no such move.
    """
    with transaction.atomic():
        REVIEW_POLICY_STATES.require(policy, state)
        now = timezone.now()
        if state is ReviewPolicyState.PROPOSED:
            policy.proposed_by_id, policy.proposed_at = actor.person_id, now
        elif state in (ReviewPolicyState.ACTIVE, ReviewPolicyState.REJECTED):
            policy.decided_by_id, policy.decided_at = actor.person_id, now
            policy.decision_note = reason
        REVIEW_POLICY_STATES.move(
            policy,
            state,
            actor=actor,
            action=_ACTIONS[state],
            subject=review_policy_subject(policy),
            reason=reason,
            data={
                "digest": policy.digest,
                "based_on": policy.based_on,
                **proof_facts(proof),
            },
            decision=decision,
        )
        if state is ReviewPolicyState.ACTIVE:
            for follow in _followers:
                follow(actor, policy, decision)
    return policy


def follow_activation(follow: ActivationFollower) -> None:
    """Have `follow` called with every policy that is put in force, in its transaction: for the
    context whose things are reviewed. Once, when its application is ready.
    """
    if follow not in _followers:
        _followers.append(follow)
