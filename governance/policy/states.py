"""Transitions of a policy, and the one function that moves it."""

from __future__ import annotations

from dataclasses import asdict

from django.db import connection, transaction
from django.utils import timezone

from governance.audit.services import Subject
from governance.people.proof import proof_facts
from governance.policy.decisions import Authorization
from governance.policy.differences import Removals
from governance.policy.engine import Resource
from governance.policy.models import PolicyState, PolicyVersion
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
POLICY_STATES = StateMachine(
    model=PolicyVersion,
    noun="policy",
    table=ALLOWED_TRANSITIONS,
    hint="draft a new policy from what it says",
    key="number",
)
_ACTIONS = {
    PolicyState.PROPOSED: "policy:propose",
    PolicyState.ACTIVE: "policy:activate",
    PolicyState.SUPERSEDED: "policy:supersede",
    PolicyState.REJECTED: "policy:reject",
    PolicyState.WITHDRAWN: "policy:withdraw",
}
# These decisions bind others, so the event records how the person proved their identity.
_DECIDED = (PolicyState.ACTIVE, PolicyState.SUPERSEDED, PolicyState.REJECTED)
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('assay:policy'))"


def policy_subject(version: PolicyVersion) -> Subject:
    """The policy as the audit log names it."""
    return Subject("policy", str(version.number), str(version))


def policy_resource(version: PolicyVersion) -> Resource:
    """The policy as the policy sees it."""
    return Resource("policy", id=str(version.number), name=str(version.number))


def policy_lock() -> None:
    """Lock all policies until the transaction ends. The second of two concurrent changes waits, and
    then sees the first one's result.
    """
    with connection.cursor() as cursor:
        cursor.execute(_LOCK)


def policy_locked(number: int) -> PolicyVersion:
    """Lock all policies until the transaction ends, and return the one of that number.

    Raises:
        NotFound: there is none.
    """
    policy_lock()
    return POLICY_STATES.locked(number)


def policy_set_state(
    *,
    actor: Principal,
    version: PolicyVersion,
    state: PolicyState,
    reason: str = "",
    decision: Authorization | None = None,
    removals: Removals | None = None,
) -> PolicyVersion:
    """Check, move and audit a policy that `policy_locked` gave. Proposing and deciding are signed.

    `removals` are the rules and tests that the actor has acknowledged as removed.

    Raises:
        WrongState: the table allows no such move.
    """
    with transaction.atomic():
        POLICY_STATES.require(version, state)
        now = timezone.now()
        if state is PolicyState.PROPOSED:
            version.proposed_by_id, version.proposed_at = actor.person_id, now
        elif state in (PolicyState.ACTIVE, PolicyState.REJECTED):
            version.decided_by_id, version.decided_at = actor.person_id, now
            version.decision_note = reason
        POLICY_STATES.move(
            version,
            state,
            actor=actor,
            action=_ACTIONS[state],
            subject=policy_subject(version),
            reason=reason,
            data={
                "digest": version.digest,
                "based_on": version.based_on,
                **({} if removals is None else {"removed": asdict(removals)}),
                **(proof_facts(actor.proof) if state in _DECIDED else {}),
            },
            decision=decision,
        )
    return version
