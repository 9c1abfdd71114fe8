"""Lifecycle of review policies: draft, proposal, and the decision of a second person."""

from __future__ import annotations

from collections.abc import Callable

from django.db import transaction
from django.db.models import Max

from governance.errors import InvalidInput, WrongState
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.models import PolicyState
from governance.policy.proposals import (
    ALLOWED_TRANSITIONS,
    PolicyLifecycle,
    author_add,
    checked_reason,
)
from governance.policy.services import authorize
from governance.principals import Principal
from governance.reviews.policies.document import (
    document_read,
    text_digest,
)
from governance.reviews.policies.models import ReviewPolicy
from governance.reviews.policies.selectors import (
    review_policies_in_force,
    review_policies_visible_to,
    review_policy_in_force,
)
from governance.reviews.policies.vocabulary import registered_vocabulary
from governance.state_machine import StateMachine

REVIEW_POLICIES = PolicyLifecycle(
    kind="review_policy",
    states=StateMachine(
        model=ReviewPolicy,
        noun="review policy",
        table=ALLOWED_TRANSITIONS,
        hint="draft a new version from its content",
        label=str,
    ),
    number="version",
    name=lambda policy: policy.name,
    visible_to=review_policies_visible_to,
)
NAMES_MAX = 30
ActivationFollower = Callable[[Principal, ReviewPolicy, Authorization | None], None]
_followers: list[ActivationFollower] = []


def follow_activation(follow: ActivationFollower) -> None:
    """Register `follow` to be called in the transaction that puts a policy in force. The context
    whose objects are reviewed calls this once, when its application is ready.
    """
    if follow not in _followers:
        _followers.append(follow)


def review_policy_draft(*, actor: Principal, text: str) -> ReviewPolicy:
    """Draft a version of the policy that `text` names, based on the version in force, if any.

    Raises:
        InvalidInput, TooLarge: the text is not a valid policy; `fields` has the lines.
        NotPermitted: the access rules deny it, or the actor is not a person.
        WrongState: there are too many open drafts and proposals, or too many policies.
    """
    with transaction.atomic():
        decision = authorize(
            actor=actor, action=Action.POLICY_DRAFT, resource=REVIEW_POLICIES.resource()
        )
        author = REVIEW_POLICIES.person(None, actor=actor, decision=decision)
        document = document_read(text, registered_vocabulary())
        REVIEW_POLICIES.lock()
        _require_room(document.name)
        active = review_policy_in_force(document.name)
        newest = ReviewPolicy.objects.filter(name=document.name).aggregate(at=Max("version"))["at"]
        policy = ReviewPolicy.objects.create(
            name=document.name,
            version=(newest or 0) + 1,
            text=text,
            digest=text_digest(text),
            based_on=active.version if active else None,
            authors=[author],
            created_by_id=author,
        )
        REVIEW_POLICIES.record(policy, "draft", actor=actor, decision=decision)
    return policy


def review_policy_revise(
    *, actor: Principal, policy_id: int, text: str, expected: str | None = None
) -> ReviewPolicy:
    """Change a draft and base it on the version in force. The actor becomes one of its authors.

    `expected` is the digest of the text that the editor saw.

    Raises:
        NotFound, NotPermitted: the draft does not exist, or the access rules deny it.
        InvalidInput, TooLarge: the text is not a valid policy, or has another name.
        WrongState: it is no longer a draft, or another person changed it meanwhile.
    """
    with transaction.atomic():
        policy, decision = REVIEW_POLICIES.locked(
            policy_id, actor=actor, action=Action.POLICY_DRAFT
        )
        author = REVIEW_POLICIES.person(policy, actor=actor, decision=decision)
        REVIEW_POLICIES.require_draft(policy, digest=policy.digest, expected=expected)
        document = document_read(text, registered_vocabulary())
        if document.name != policy.name:
            raise InvalidInput(
                f"This is a draft of the policy {policy.name}; its text names {document.name}.",
                hint="Create a separate draft for a policy with another name.",
                fields={"name": [f"is {policy.name}"]},
            )
        author_add(policy, author)
        active = review_policy_in_force(policy.name)
        policy.based_on = active.version if active else None
        policy.text, policy.digest = text, text_digest(text)
        policy.save()
        REVIEW_POLICIES.record(policy, "revise", actor=actor, decision=decision)
    return policy


def review_policy_propose(*, actor: Principal, policy_id: int) -> ReviewPolicy:
    """Submit a draft for a decision, which freezes it. The actor becomes one of its authors.

    Raises:
        NotFound, NotPermitted: the draft does not exist, or the access rules deny it.
        InvalidInput: it has terms that no longer exist.
        WrongState: it is not a draft, its base is no longer in force, or its rank is taken.
    """
    with transaction.atomic():
        policy, decision = REVIEW_POLICIES.locked(
            policy_id, actor=actor, action=Action.POLICY_DRAFT
        )
        author = REVIEW_POLICIES.person(policy, actor=actor, decision=decision)
        REVIEW_POLICIES.states.require(policy, PolicyState.PROPOSED)
        _require_ready(policy, "proposed")
        if author_add(policy, author):
            policy.save(update_fields=["authors"])
        return REVIEW_POLICIES.move(policy, PolicyState.PROPOSED, actor=actor, decision=decision)


def review_policy_decide(
    *, actor: Principal, policy_id: int, verdict: str, reason: str
) -> ReviewPolicy:
    """Decide on a proposal: `approve` replaces the version in force; `reject` is final.

    Existing reviews keep their version; registered followers may void open ones.

    Raises:
        NotFound, NotPermitted: it does not exist, the access rules deny it, the actor edited it, or
            has no fresh second factor.
        InvalidInput: an unknown verdict, or no reason.
        WrongState: it is not (or no longer) proposed, its base is no longer in force, or its rank
            is taken.
    """
    if verdict not in ("approve", "reject"):
        raise InvalidInput(
            "Choose to approve or to reject.",
            fields={"verdict": ["is approve or reject"]},
        )
    reason = checked_reason(reason, required=True)
    with transaction.atomic():
        policy, decision = REVIEW_POLICIES.locked(
            policy_id, actor=actor, action=Action.POLICY_DECIDE
        )
        REVIEW_POLICIES.require_second_person(policy, actor=actor, decision=decision, verb=verdict)
        if verdict == "reject":
            return REVIEW_POLICIES.move(
                policy, PolicyState.REJECTED, actor=actor, reason=reason, decision=decision
            )
        REVIEW_POLICIES.states.require(policy, PolicyState.ACTIVE)
        _require_ready(policy, "put in force")
        former = review_policy_in_force(policy.name)
        if former is not None:
            REVIEW_POLICIES.move(
                former,
                PolicyState.SUPERSEDED,
                actor=actor,
                reason=f"By {policy}.",
                decision=decision,
            )
        REVIEW_POLICIES.move(
            policy, PolicyState.ACTIVE, actor=actor, reason=reason, decision=decision
        )
        for follow in _followers:
            follow(actor, policy, decision)
    return policy


def review_policy_withdraw(*, actor: Principal, policy_id: int, reason: str = "") -> ReviewPolicy:
    """Withdraw a draft or a proposal for good.

    Raises:
        NotFound, NotPermitted: it does not exist, or the access rules deny it.
        InvalidInput: the reason is too long.
        WrongState: it is already decided or withdrawn.
    """
    reason = checked_reason(reason)
    with transaction.atomic():
        policy, decision = REVIEW_POLICIES.locked(
            policy_id, actor=actor, action=Action.POLICY_DRAFT
        )
        return REVIEW_POLICIES.move(
            policy, PolicyState.WITHDRAWN, actor=actor, reason=reason, decision=decision
        )


def _require_room(name: str) -> None:
    REVIEW_POLICIES.require_room()
    names = set(ReviewPolicy.objects.values_list("name", flat=True).distinct())
    if name not in names and len(names) >= NAMES_MAX:
        raise WrongState(f"There are {NAMES_MAX} review policies; another one cannot be created.")


def _require_ready(policy: ReviewPolicy, verb: str) -> None:
    """Raise WrongState or InvalidInput if the policy may not be proposed or approved."""
    document = document_read(policy.text, registered_vocabulary())
    active = review_policy_in_force(policy.name)
    REVIEW_POLICIES.require_base(policy, active, verb)
    for other in review_policies_in_force():
        if other.policy.name != policy.name and other.document.rank == document.rank:
            raise WrongState(
                f"Review policy {policy} cannot be {verb}: {other.policy} has the rank "
                f"{document.rank} too, so the order would be unclear.",
                hint="Give it another rank.",
            )
