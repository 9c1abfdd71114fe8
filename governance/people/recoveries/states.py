"""States of a recovery, and the events that record them."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.people.models import Person
from governance.people.proof import proof_facts
from governance.people.recoveries.models import AccountRecovery, RecoveryState
from governance.policy.decisions import Authorization
from governance.principals import Principal, background
from governance.state_machine import StateMachine

ALLOWED_TRANSITIONS: dict[RecoveryState, frozenset[RecoveryState]] = {
    RecoveryState.PENDING: frozenset(
        {RecoveryState.APPROVED, RecoveryState.REJECTED, RecoveryState.EXPIRED}
    ),
    RecoveryState.APPROVED: frozenset(
        {RecoveryState.OPENED, RecoveryState.REJECTED, RecoveryState.EXPIRED}
    ),
    RecoveryState.OPENED: frozenset(),
    RecoveryState.REJECTED: frozenset(),
    RecoveryState.EXPIRED: frozenset(),
}
RECOVERY_STATES = StateMachine(
    model=AccountRecovery,
    noun="recovery",
    table=ALLOWED_TRANSITIONS,
    hint="request another recovery",
    related=("person", "requested_by", "approved_by"),
)
_ACTIONS = {
    RecoveryState.PENDING: "recovery:request",
    RecoveryState.APPROVED: "recovery:approve",
    RecoveryState.OPENED: "recovery:open",
    RecoveryState.REJECTED: "recovery:reject",
    RecoveryState.EXPIRED: "recovery:expire",
}


def recovery_subject(person: Person) -> Subject:
    """Return the account as the audit log names it."""
    return Subject("person", str(person.pk), person.name)


def recovery_save_state(
    *,
    actor: Principal,
    recovery: AccountRecovery,
    state: RecoveryState,
    fields: list[str],
    data: dict[str, Any] | None = None,
    decision: Authorization | None = None,
) -> None:
    """Change a locked recovery's state, save `fields` with it, and record the event.

    Raises:
        WrongState: this transition is not allowed.
    """
    RECOVERY_STATES.save_state(recovery, state, fields)
    recovery_record(actor=actor, recovery=recovery, state=state, data=data, decision=decision)


def recovery_record(
    *,
    actor: Principal,
    recovery: AccountRecovery,
    state: RecoveryState,
    data: dict[str, Any] | None = None,
    decision: Authorization | None = None,
) -> None:
    """Record the event of a recovery that entered `state`."""
    reason = recovery.reason if state is RecoveryState.PENDING else recovery.end_reason
    with background("bootstrap", actor):
        audit_record(
            actor=actor,
            action=_ACTIONS[state],
            subject=recovery_subject(recovery.person),
            reason=reason,
            data={
                "recovery": recovery.pk,
                "purpose": str(recovery.purpose),
                "requested_by": recovery.requested_by_id,
                "approved_by": recovery.approved_by_id,
                "on_server": recovery.on_server,
                **(data or {}),
                **(proof_facts(actor.proof) if state is not RecoveryState.EXPIRED else {}),
            },
            decision=decision,
        )


def recovery_end(
    *,
    actor: Principal,
    recovery: AccountRecovery,
    state: RecoveryState,
    reason: str = "",
    decision: Authorization | None = None,
) -> None:
    """Reject or expire a locked recovery, and revoke its link.

    Raises:
        WrongState: its link was opened, or it has ended.
    """
    recovery.ended_by_id, recovery.ended_at = actor.person_id, timezone.now()
    recovery.end_reason = reason
    recovery_save_state(
        actor=actor,
        recovery=recovery,
        state=state,
        fields=["ended_by", "ended_at", "end_reason"],
        decision=decision,
    )
    if state is not RecoveryState.EXPIRED:
        # The link of an expired recovery has expired with it, so the controller need not revoke it.
        recovery.links.filter(used_at=None, revoked_at=None).update(revoked_at=timezone.now())
