"""Lifecycle of access policies and review policies: drafts, proposals and decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.db.models import QuerySet
from django.utils import timezone

from governance.audit.services import Attempt, Subject, audit_record
from governance.database.locks import lock
from governance.errors import InvalidInput, NotPermitted, WrongState
from governance.people.credentials import with_sign_in_admins
from governance.people.proof import proof_facts, require_proof
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.engine import Resource
from governance.policy.models import DECIDED_STATES, DECISION_NOTE_MAX, PolicyBase, PolicyState
from governance.policy.services import authorize
from governance.principals import Principal
from governance.state_machine import StateMachine

ALLOWED_TRANSITIONS: dict[PolicyState, frozenset[PolicyState]] = {
    PolicyState.DRAFT: frozenset({PolicyState.PROPOSED, PolicyState.WITHDRAWN}),
    PolicyState.PROPOSED: frozenset(
        {PolicyState.ACTIVE, PolicyState.REJECTED, PolicyState.WITHDRAWN}
    ),
    PolicyState.ACTIVE: frozenset({PolicyState.SUPERSEDED}),
    PolicyState.SUPERSEDED: frozenset(),
    PolicyState.REJECTED: frozenset(),
    PolicyState.WITHDRAWN: frozenset(),
}
OPEN_MAX = 50
_VERBS = {
    PolicyState.PROPOSED: "propose",
    PolicyState.ACTIVE: "activate",
    PolicyState.SUPERSEDED: "supersede",
    PolicyState.REJECTED: "reject",
    PolicyState.WITHDRAWN: "withdraw",
}
Policy = TypeVar("Policy", bound=PolicyBase)


@dataclass(frozen=True, slots=True)
class PolicyLifecycle(Generic[Policy]):
    """The steps of a policy, and the conditions for each.

    Args:
        kind: Type of the resource and prefix of the audit actions, such as "review_policy".
        states: The state machine.
        number: Column with the number that a later policy's `based_on` refers to.
        name: Function that returns the policy's name for access rules.
        visible_to: Function that returns the policies that a principal may see.
    """

    kind: str
    states: StateMachine[Policy, PolicyState]
    number: str
    name: Callable[[Policy], str]
    visible_to: Callable[[Principal], QuerySet[Policy]]

    def resource(self, policy: Policy | None = None) -> Resource:
        """Return the policy as a resource of access rules; without one, any policy of the kind."""
        if policy is None:
            return Resource(self.kind)
        return Resource(self.kind, id=self._id(policy), name=self.name(policy))

    def subject(self, policy: Policy | None = None) -> Subject:
        """Return the policy as an audit subject."""
        if policy is None:
            return Subject(self.kind, "", self.states.noun)
        return Subject(self.kind, self._id(policy), str(policy))

    def lock(self) -> None:
        """Lock the policies of this kind against other changes until the transaction ends."""
        lock(f"policies:{self.kind}")

    def locked(self, key: int, *, actor: Principal, action: Action) -> tuple[Policy, Authorization]:
        """Return the policy, locked as by `lock`, and the decision that permits the action.

        Raises:
            NotFound: it does not exist, or the actor may not see it.
            NotPermitted: the access rules deny it.
        """
        self.lock()
        policy = self.states.locked(key)
        try:
            return policy, authorize(actor=actor, action=action, resource=self.resource(policy))
        except NotPermitted as error:
            if self.visible_to(actor).filter(pk=policy.pk).exists():
                raise
            raise self.states.missing(error) from error

    def person(
        self,
        policy: Policy | None,
        *,
        actor: Principal,
        decision: Authorization,
        action: Action = Action.POLICY_DRAFT,
    ) -> int:
        """Return the actor's person ID.

        Raises:
            NotPermitted: the actor is not a person; only people can draft or decide on policies.
        """
        if actor.person_id is None:
            raise NotPermitted(
                f"{actor.name} is not a person; only people draft and decide on policies.",
                code="separation_of_duties",
                attempt=self._attempt(policy, actor, decision, action),
            )
        return actor.person_id

    def require_second_person(
        self, policy: Policy, *, actor: Principal, decision: Authorization, verb: str
    ) -> None:
        """Raise `NotPermitted` unless the actor may decide on the policy: a person who wrote no
        part of it, and gave a second factor within ten minutes.
        """
        action = Action.POLICY_DECIDE
        attempt = self._attempt(policy, actor, decision, action)
        # Check this first: a second factor does not make an author a second person.
        person = self.person(policy, actor=actor, decision=decision, action=action)
        if person in with_sign_in_admins(policy.authors):
            raise NotPermitted(
                f"Separation of duties: {actor.name} edited {self.states.name(policy)}, or set up "
                f"the account of one of its authors, and may not {verb} it.",
                code="separation_of_duties",
                hint="A person who did not edit it must decide; its authors can withdraw it.",
                attempt=attempt,
            )
        require_proof(actor, f"deciding on {self.states.name(policy)}", attempt=attempt)

    def require_room(self) -> None:
        """Raise `WrongState` when too many drafts and proposals are open."""
        states = (PolicyState.DRAFT, PolicyState.PROPOSED)
        rows = self.states.model._default_manager.filter(state__in=states)
        if rows.count() >= OPEN_MAX:
            raise WrongState(
                f"{OPEN_MAX} drafts and proposals are open; another one cannot be created.",
                hint="Withdraw abandoned ones.",
            )

    def require_draft(self, policy: Policy, *, digest: str, expected: str | None) -> None:
        """Raise `WrongState` unless the policy is a draft that has the expected digest, if any."""
        if policy.state != PolicyState.DRAFT:
            raise WrongState(
                f"{self.states.title(policy)} is {policy.state}; only a draft can be changed.",
                hint="Draft a new one from its content.",
            )
        if expected is not None and expected != digest:
            raise WrongState(
                f"The draft of {self.states.name(policy)} was changed meanwhile; your change is "
                "not saved.",
                hint="Reload the draft, and make your change again.",
            )

    def require_base(self, policy: Policy, active: Policy | None, verb: str) -> None:
        """Raise `WrongState` unless the policy is based on the one in force, `active`."""
        if (getattr(active, self.number) if active else None) != policy.based_on:
            base = f"version {policy.based_on}" if policy.based_on else "nothing"
            raise WrongState(
                f"{self.states.title(policy)} was drafted from {base}, but "
                f"{active or 'none'} is in force; it cannot be {verb}.",
                hint="Compare it with the policy in force, and base the draft, or a new one, "
                "on that.",
            )

    def record(
        self,
        policy: Policy,
        verb: str,
        *,
        actor: Principal,
        decision: Authorization,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Record the event of a change to a draft."""
        audit_record(
            actor=actor,
            action=f"{self.kind}:{verb}",
            subject=self.subject(policy),
            data={"digest": policy.digest, "based_on": policy.based_on, **(data or {})},
            decision=decision,
        )

    def move(
        self,
        policy: Policy,
        to: PolicyState,
        *,
        actor: Principal,
        reason: str = "",
        decision: Authorization | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Policy:
        """Set the state of a locked policy with who proposed or decided it, and record the event.

        The event of a decision contains the actor's proof of identity.

        Raises:
            WrongState: the state machine does not allow the transition.
        """
        self.states.require(policy, to)
        if to is PolicyState.PROPOSED:
            policy.proposed_by_id, policy.proposed_at = actor.person_id, timezone.now()
        elif to in (PolicyState.ACTIVE, PolicyState.REJECTED):
            policy.decided_by_id, policy.decided_at = actor.person_id, timezone.now()
            policy.decision_note = reason
        self.states.move(
            policy,
            to,
            actor=actor,
            action=f"{self.kind}:{_VERBS[to]}",
            subject=self.subject(policy),
            reason=reason,
            data={
                "digest": policy.digest,
                "based_on": policy.based_on,
                **(data or {}),
                **(proof_facts(actor.proof) if to in DECIDED_STATES else {}),
            },
            decision=decision,
        )
        return policy

    def _attempt(
        self, policy: Policy | None, actor: Principal, decision: Authorization, action: Action
    ) -> Attempt:
        return Attempt(actor, action.value, self.subject(policy), decision=decision)

    def _id(self, policy: Policy) -> str:
        return str(getattr(policy, self.states.key))


def author_add(policy: PolicyBase, person: int) -> bool:
    """Add the person to the authors; return whether they were missing. The caller saves."""
    if person in policy.authors:
        return False
    policy.authors = [*policy.authors, person]
    return True


def checked_reason(text: str, *, required: bool = False) -> str:
    """Return the reason without surrounding space.

    Raises:
        InvalidInput: it is required and empty, too long, or contains an invalid character.
    """
    text = text.strip()
    if len(text) > DECISION_NOTE_MAX or "\x00" in text or (required and not text):
        raise InvalidInput(
            f"Give a reason of at most {DECISION_NOTE_MAX:,} characters.",
            fields={"reason": [f"is needed, and has at most {DECISION_NOTE_MAX:,} characters"]},
        )
    return text
