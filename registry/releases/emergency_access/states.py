"""Transitions of emergency access, including its end when the release is decided, withdrawn,
recalled or suspended.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from governance.audit.services import Subject
from governance.policy.decisions import Authorization
from governance.principals import Principal, background
from governance.rowsecurity import lifted
from governance.state_machine import StateMachine
from registry.releases.emergency_access.models import EmergencyAccess, EmergencyAccessState

ALLOWED_TRANSITIONS: dict[EmergencyAccessState, frozenset[EmergencyAccessState]] = {
    EmergencyAccessState.REQUESTED: frozenset(
        {EmergencyAccessState.ACTIVE, EmergencyAccessState.REFUSED, EmergencyAccessState.LAPSED}
    ),
    EmergencyAccessState.ACTIVE: frozenset({EmergencyAccessState.ENDED}),
    EmergencyAccessState.ENDED: frozenset({EmergencyAccessState.REVIEWED}),
    EmergencyAccessState.REVIEWED: frozenset(),
    EmergencyAccessState.REFUSED: frozenset(),
    EmergencyAccessState.LAPSED: frozenset(),
}
EMERGENCY_ACCESS_STATES = StateMachine(
    model=EmergencyAccess,
    noun="emergency-access",
    table=ALLOWED_TRANSITIONS,
    related=("department",),
)
# Lock its release first.
emergency_access_locked = EMERGENCY_ACCESS_STATES.locked
# States after which a review is due, because access was in force.
USED = frozenset(
    {EmergencyAccessState.ACTIVE, EmergencyAccessState.ENDED, EmergencyAccessState.REVIEWED}
)
REVIEW_WITHIN = timedelta(hours=24)


def emergency_access_subject(emergency: EmergencyAccess) -> Subject:
    """Return the emergency access as the audit log names it."""
    return Subject(type="emergency_access", id=str(emergency.pk), name=str(emergency))


def emergency_access_set_state(
    *,
    actor: Principal,
    emergency: EmergencyAccess,
    state: EmergencyAccessState,
    reason: str,
    decision: Authorization | None = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Move a locked emergency access, save all its changed fields, and audit it.

    Raises:
        WrongState: the transition is not allowed.
    """
    with background(f"release-{emergency.release_id}", actor):
        EMERGENCY_ACCESS_STATES.move(
            emergency,
            state,
            actor=actor,
            action=f"emergency_access:{state.value}",
            subject=emergency_access_subject(emergency),
            reason=reason,
            department=emergency.department.slug,
            data={
                "release": emergency.release_id,
                "dossier": emergency.dossier_digest,
                **(data or {}),
            },
            decision=decision,
        )


def emergency_access_close(
    *,
    actor: Principal,
    emergency: EmergencyAccess,
    reason: str,
    decision: Authorization | None = None,
    at: datetime | None = None,
) -> None:
    """End a locked one that is in force, at its scheduled end at the latest; its review is due a
    day later."""
    emergency.ended_at = min(at or timezone.now(), emergency.ends_at) if emergency.ends_at else at
    emergency.ended_by_id = actor.person_id
    emergency.ended_reason = reason[:1000]
    if emergency.due_at is not None and emergency.ended_at is not None:
        emergency.due_at = min(emergency.due_at, emergency.ended_at + REVIEW_WITHIN)
    emergency_access_set_state(
        actor=actor,
        emergency=emergency,
        state=EmergencyAccessState.ENDED,
        reason=reason,
        decision=decision,
    )


@lifted()
def emergency_accesses_over(
    *,
    actor: Principal,
    release_ids: Collection[int],
    reason: str,
    decision: Authorization | None,
    unless_of: str = "",
) -> None:
    """End access in force and refuse requests, for locked releases that may no longer serve by
    them, except for the dossier with the digest `unless_of`, which is still under review."""
    rows = EmergencyAccess.objects.select_for_update(of=("self",)).select_related("department")
    open_states = (EmergencyAccessState.REQUESTED, EmergencyAccessState.ACTIVE)
    rows = rows.filter(release_id__in=release_ids, state__in=open_states)
    for emergency in rows.exclude(dossier_digest=unless_of).order_by("pk"):
        if emergency.state == EmergencyAccessState.ACTIVE:
            emergency_access_close(
                actor=actor, emergency=emergency, reason=reason, decision=decision
            )
            continue
        emergency_access_set_state(
            actor=actor,
            emergency=emergency,
            state=EmergencyAccessState.REFUSED,
            reason=reason,
            decision=decision,
        )


def emergency_access_lapse(actor: Principal, emergency: EmergencyAccess) -> None:
    """Let a locked, unconfirmed request lapse."""
    emergency_access_set_state(
        actor=actor,
        emergency=emergency,
        state=EmergencyAccessState.LAPSED,
        reason="It was not confirmed within an hour.",
    )
