"""Lifecycle of review policies: a draft, a proposal, and a second person who decides."""

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
from governance.reviews.policies.vocabulary import vocabulary_known
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
    """Have `follow` called with every policy that is put in force, in its transaction: for the
    context whose things are reviewed. Once, when its application is ready.
    """
    if follow not in _followers:
        _followers.append(follow)


def review_policy_draft(*, actor: Principal, text: str) -> ReviewPolicy:
    """A new version of the policy that `text` names, based on the version in force, if any.

    Raises:
        InvalidInput, TooLarge: the text is no valid policy; `fields` says in which line.
        NotPermitted: the rules of access refuse, or the actor is no person.
        WrongState: too many drafts and proposals are open, or too many policies there.
    """
    with transaction.atomic():
        decision = authorize(
            actor=actor, action=Action.POLICY_DRAFT, resource=REVIEW_POLICIES.resource()
        )
        author = REVIEW_POLICIES.person(None, actor=actor, decision=decision)
        document = document_read(text, vocabulary_known())
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
    """Change a draft. The actor becomes one of its authors, and it is based on what is in force.

    `expected` is the digest of the text that the change was made from.

    Raises:
        NotFound, NotPermitted: there is none, or the rules of access refuse.
        InvalidInput, TooLarge: the text is no valid policy, or of another name.
        WrongState: it is no longer a draft, or another person changed it meanwhile.
    """
    with transaction.atomic():
        policy, decision = REVIEW_POLICIES.locked(
            policy_id, actor=actor, action=Action.POLICY_DRAFT
        )
        author = REVIEW_POLICIES.person(policy, actor=actor, decision=decision)
        REVIEW_POLICIES.require_draft(policy, digest=policy.digest, expected=expected)
        document = document_read(text, vocabulary_known())
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
    """Ask for a decision on a draft, which freezes it. The actor becomes one of its authors.

    Raises:
        NotFound, NotPermitted: there is none, or the rules of access refuse.
        InvalidInput: what it asks for is not known any more.
        WrongState: it is no draft, its base is no longer in force, or its rank is taken.
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
    """`approve` puts a proposal in force, in place of the version that was; `reject` is for good.

    Reviews keep the version that they opened under; of a release, those under review are voided.

    Raises:
        NotFound, NotPermitted: there is none, the rules of access refuse, the actor wrote on it, or
            gave no second factor within ten minutes.
        InvalidInput: another verdict, or no reason.
        WrongState: it is not proposed (any more), its base is no longer in force, or its rank is
            taken.
    """
    if verdict not in ("approve", "reject"):
        raise InvalidInput(
            f"A review policy is approved or rejected; {verdict[:40]!r} is neither.",
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
        before = review_policy_in_force(policy.name)
        if before is not None:
            REVIEW_POLICIES.move(
                before,
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
    """Take a draft or a proposal back, for good.

    Raises:
        NotFound, NotPermitted: there is none, or the rules of access refuse.
        InvalidInput: the reason is too long.
        WrongState: it was decided, or withdrawn already.
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
        raise WrongState(f"There are {NAMES_MAX} review policies; no further one is made.")


def _require_ready(policy: ReviewPolicy, verb: str) -> None:
    """Raises WrongState or InvalidInput when it may not go on toward being in force."""
    document = document_read(policy.text, vocabulary_known())
    active = review_policy_in_force(policy.name)
    REVIEW_POLICIES.require_base(policy, active, verb)
    for other in review_policies_in_force():
        if other.policy.name != policy.name and other.document.rank == document.rank:
            raise WrongState(
                f"Review policy {policy} cannot be {verb}: {other.policy} has the rank "
                f"{document.rank} too, so the order would be unclear.",
                hint="Give it another rank.",
            )
