"""How review policies change: a draft, a proposal, and a second person who decides."""

from __future__ import annotations

from django.db import transaction
from django.db.models import Max

from governance.audit.services import Attempt, Subject, audit_record
from governance.errors import InvalidInput, NotPermitted, WrongState
from governance.people.proof import require_proof
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.engine import Resource
from governance.policy.services import authorize
from governance.principals import Principal, Proof
from governance.reviews.policies.document import (
    ReviewPolicyDocument,
    document_read,
    text_digest,
)
from governance.reviews.policies.models import ReviewPolicy, ReviewPolicyState
from governance.reviews.policies.selectors import (
    review_policies_in_force,
    review_policies_visible_to,
    review_policy_in_force,
)
from governance.reviews.policies.states import (
    REVIEW_POLICY_STATES,
    review_policies_lock,
    review_policy_locked,
    review_policy_resource,
    review_policy_set_state,
    review_policy_subject,
)
from governance.reviews.policies.vocabulary import vocabulary_known

OPEN_MAX = 50
NAMES_MAX = 30
REASON_MAX = 2000
_ANY = Resource("review_policy")


def review_policy_draft(*, actor: Principal, text: str) -> ReviewPolicy:
    """A new version of the policy that `text` names, based on the version in force, if any.

    Raises:
        InvalidInput, TooLarge: the text is no valid policy; `fields` says in which line.
        NotPermitted: the rules of access refuse, or the actor is no person.
        WrongState: too many drafts and proposals are open, or too many policies there.
    """
    with transaction.atomic():
        decision = authorize(actor=actor, action=Action.POLICY_DRAFT, resource=_ANY)
        author = _person(actor, decision, Action.POLICY_DRAFT, None)
        document = document_read(text, vocabulary_known())
        review_policies_lock()
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
        _record(actor, "review_policy:draft", policy, decision)
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
        policy, decision = _locked(actor, policy_id, Action.POLICY_DRAFT)
        author = _person(actor, decision, Action.POLICY_DRAFT, policy)
        if policy.state != ReviewPolicyState.DRAFT:
            raise WrongState(
                f"Review policy {policy} is {policy.state}; only a draft can be changed.",
                hint="Draft a new version from what it says.",
            )
        if expected is not None and expected != policy.digest:
            raise WrongState(
                f"Draft {policy} was changed meanwhile; your change is not saved.",
                hint="Look at what it says now, and change that.",
            )
        document = document_read(text, vocabulary_known())
        if document.name != policy.name:
            raise InvalidInput(
                f"This is a draft of the policy {policy.name}; its text names {document.name}.",
                hint="A policy of another name is drafted for itself.",
                fields={"name": [f"is {policy.name}"]},
            )
        if author not in policy.authors:
            policy.authors = [*policy.authors, author]
        active = review_policy_in_force(policy.name)
        policy.based_on = active.version if active else None
        policy.text, policy.digest = text, text_digest(text)
        policy.save()
        _record(actor, "review_policy:revise", policy, decision)
    return policy


def review_policy_propose(*, actor: Principal, policy_id: int) -> ReviewPolicy:
    """Ask for a decision on a draft, which freezes it. The actor becomes one of its authors.

    Raises:
        NotFound, NotPermitted: there is none, or the rules of access refuse.
        InvalidInput: what it asks for is not known any more.
        WrongState: it is no draft, its base is no longer in force, or its rank is taken.
    """
    with transaction.atomic():
        policy, decision = _locked(actor, policy_id, Action.POLICY_DRAFT)
        author = _person(actor, decision, Action.POLICY_DRAFT, policy)
        REVIEW_POLICY_STATES.require(policy, ReviewPolicyState.PROPOSED)
        _require_ready(policy, "proposed")
        if author not in policy.authors:
            policy.authors = [*policy.authors, author]
            policy.save(update_fields=["authors"])
        return _move(actor, policy, ReviewPolicyState.PROPOSED, decision)


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
    reason = _reason(reason, needed=True)
    with transaction.atomic():
        policy, decision = _locked(actor, policy_id, Action.POLICY_DECIDE)
        if _person(actor, decision, Action.POLICY_DECIDE, policy) in policy.authors:
            raise _refused(
                actor,
                decision,
                Action.POLICY_DECIDE,
                policy,
                f"Separation of duties: {actor.name} wrote on review policy {policy} and may not "
                f"{verdict} it.",
                "A person who did not edit it must decide; its authors can withdraw it.",
            )
        attempt = _attempt(actor, decision, Action.POLICY_DECIDE, policy)
        proof = require_proof(actor, f"deciding on review policy {policy}", attempt=attempt)
        if verdict == "reject":
            return _move(actor, policy, ReviewPolicyState.REJECTED, decision, reason, proof)
        REVIEW_POLICY_STATES.require(policy, ReviewPolicyState.ACTIVE)
        _require_ready(policy, "put in force")
        before = review_policy_in_force(policy.name)
        if before is not None:
            _move(actor, before, ReviewPolicyState.SUPERSEDED, decision, f"By {policy}.")
        return _move(actor, policy, ReviewPolicyState.ACTIVE, decision, reason, proof)


def review_policy_withdraw(*, actor: Principal, policy_id: int, reason: str = "") -> ReviewPolicy:
    """Take a draft or a proposal back, for good.

    Raises:
        NotFound, NotPermitted: there is none, or the rules of access refuse.
        InvalidInput: the reason is too long.
        WrongState: it was decided, or withdrawn already.
    """
    reason = _reason(reason)
    with transaction.atomic():
        policy, decision = _locked(actor, policy_id, Action.POLICY_DRAFT)
        return _move(actor, policy, ReviewPolicyState.WITHDRAWN, decision, reason)


def _locked(actor: Principal, policy_id: int, action: Action) -> tuple[ReviewPolicy, Authorization]:
    policy = review_policy_locked(policy_id)
    try:
        decision = authorize(actor=actor, action=action, resource=review_policy_resource(policy))
    except NotPermitted as error:
        if review_policies_visible_to(actor).filter(pk=policy_id).exists():
            raise
        raise REVIEW_POLICY_STATES.missing(error) from error
    return policy, decision


def _move(
    actor: Principal,
    policy: ReviewPolicy,
    state: ReviewPolicyState,
    decision: Authorization,
    reason: str = "",
    proof: Proof | None = None,
) -> ReviewPolicy:
    return review_policy_set_state(
        actor=actor,
        policy=policy,
        state=state,
        reason=reason,
        decision=decision,
        proof=proof,
    )


def _record(actor: Principal, action: str, policy: ReviewPolicy, decision: Authorization) -> None:
    audit_record(
        actor=actor,
        action=action,
        subject=review_policy_subject(policy),
        data={"digest": policy.digest, "based_on": policy.based_on},
        decision=decision,
    )


def _require_room(name: str) -> None:
    rows = ReviewPolicy.objects.filter(
        state__in=(ReviewPolicyState.DRAFT, ReviewPolicyState.PROPOSED)
    )
    if rows.count() >= OPEN_MAX:
        raise WrongState(
            f"{OPEN_MAX} drafts and proposals of review policies are open; no further one is made.",
            hint="Withdraw abandoned ones.",
        )
    names = set(ReviewPolicy.objects.values_list("name", flat=True).distinct())
    if name not in names and len(names) >= NAMES_MAX:
        raise WrongState(f"There are {NAMES_MAX} review policies; no further one is made.")


def _require_ready(policy: ReviewPolicy, verb: str) -> ReviewPolicyDocument:
    """Raises WrongState or InvalidInput when it may not go on towards being in force."""
    document = document_read(policy.text, vocabulary_known())
    active = review_policy_in_force(policy.name)
    if (active.version if active else None) != policy.based_on:
        now = f"{active} is in force" if active else "none is in force"
        was = f"version {policy.based_on}" if policy.based_on else "nothing"
        raise WrongState(
            f"Review policy {policy} was drafted from {was}, but {now}; it cannot be {verb}.",
            hint="Look at what it would change now; draft a new version from that.",
        )
    for other in review_policies_in_force():
        if other.policy.name != policy.name and other.document.rank == document.rank:
            raise WrongState(
                f"Review policy {policy} cannot be {verb}: {other.policy} has the rank "
                f"{document.rank} too, so that neither would come first.",
                hint="Give it another rank.",
            )
    return document


def _person(
    actor: Principal, decision: Authorization, action: Action, policy: ReviewPolicy | None
) -> int:
    """Raises NotPermitted when the actor is no person, who alone can answer for a policy."""
    if actor.person_id is None:
        message = f"{actor.name} is no person; review policies are written and decided by people."
        raise _refused(actor, decision, action, policy, message)
    return actor.person_id


def _refused(
    actor: Principal,
    decision: Authorization,
    action: Action,
    policy: ReviewPolicy | None,
    message: str,
    hint: str = "",
) -> NotPermitted:
    attempt = _attempt(actor, decision, action, policy)
    return NotPermitted(message, code="separation_of_duties", hint=hint, attempt=attempt)


def _attempt(
    actor: Principal, decision: Authorization, action: Action, policy: ReviewPolicy | None
) -> Attempt:
    return Attempt(
        actor=actor,
        action=action.value,
        subject=review_policy_subject(policy) if policy else Subject("review_policy", "", ""),
        decision=decision,
    )


def _reason(text: str, *, needed: bool = False) -> str:
    text = text.replace("\x00", "").strip()
    if len(text) > REASON_MAX or (needed and not text):
        raise InvalidInput(
            f"Say why, in at most {REASON_MAX:,} characters.",
            fields={"reason": [f"is needed, and has at most {REASON_MAX:,} characters"]},
        )
    return text
