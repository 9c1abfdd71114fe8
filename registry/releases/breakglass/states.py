"""The state machine of a break-glass: one table, the function that moves a locked one, and what
ends those of releases that are decided, withdrawn, recalled or suspended.
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
from registry.releases.breakglass.models import BreakGlass, BreakGlassState

ALLOWED_TRANSITIONS: dict[BreakGlassState, frozenset[BreakGlassState]] = {
    BreakGlassState.REQUESTED: frozenset(
        {BreakGlassState.ACTIVE, BreakGlassState.REFUSED, BreakGlassState.LAPSED}
    ),
    BreakGlassState.ACTIVE: frozenset({BreakGlassState.ENDED}),
    BreakGlassState.ENDED: frozenset({BreakGlassState.REVIEWED}),
    BreakGlassState.REVIEWED: frozenset(),
    BreakGlassState.REFUSED: frozenset(),
    BreakGlassState.LAPSED: frozenset(),
}
BREAK_GLASS_STATES = StateMachine(
    model=BreakGlass, noun="break-glass", table=ALLOWED_TRANSITIONS, related=("department",)
)
# Its release is locked before it.
break_glass_locked = BREAK_GLASS_STATES.locked
# What was in force once, and so must be reviewed.
USED = frozenset({BreakGlassState.ACTIVE, BreakGlassState.ENDED, BreakGlassState.REVIEWED})
REVIEW_WITHIN = timedelta(hours=24)


def break_glass_subject(glass: BreakGlass) -> Subject:
    """The break-glass as the audit log names it."""
    return Subject(type="break_glass", id=str(glass.pk), name=str(glass))


def break_glass_set_state(
    *,
    actor: Principal,
    glass: BreakGlass,
    state: BreakGlassState,
    reason: str,
    decision: Authorization | None = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Move a locked break-glass, save and audit it; what else has changed of it is saved too.

    Raises:
        WrongState: there is no way from where it stands.
    """
    with background(f"release-{glass.release_id}", actor):
        BREAK_GLASS_STATES.move(
            glass,
            state,
            actor=actor,
            action=f"break_glass:{state.value}",
            subject=break_glass_subject(glass),
            reason=reason,
            department=glass.department.slug,
            data={
                "release": glass.release_id,
                "dossier": glass.dossier_digest,
                **(data or {}),
            },
            decision=decision,
        )


def break_glass_close(
    *,
    actor: Principal,
    glass: BreakGlass,
    reason: str,
    decision: Authorization | None = None,
    at: datetime | None = None,
) -> None:
    """End a locked one that is in force, at most when it would have ended by itself; the review
    afterward is due a day later."""
    glass.ended_at = min(at or timezone.now(), glass.ends_at) if glass.ends_at else at
    glass.ended_by_id = actor.person_id
    glass.ended_reason = reason[:1000]
    if glass.due_at is not None and glass.ended_at is not None:
        glass.due_at = min(glass.due_at, glass.ended_at + REVIEW_WITHIN)
    break_glass_set_state(
        actor=actor,
        glass=glass,
        state=BreakGlassState.ENDED,
        reason=reason,
        decision=decision,
    )


@lifted()
def break_glasses_over(
    *,
    actor: Principal,
    release_ids: Collection[int],
    reason: str,
    decision: Authorization | None,
    unless_of: str = "",
) -> None:
    """End what is in force and refuse what is requested, for locked releases that may no longer
    serve by it; `unless_of` is the digest of a dossier that is still under review."""
    rows = BreakGlass.objects.select_for_update(of=("self",)).select_related("department")
    open_states = (BreakGlassState.REQUESTED, BreakGlassState.ACTIVE)
    rows = rows.filter(release_id__in=release_ids, state__in=open_states)
    for glass in rows.exclude(dossier_digest=unless_of).order_by("pk"):
        if glass.state == BreakGlassState.ACTIVE:
            break_glass_close(actor=actor, glass=glass, reason=reason, decision=decision)
            continue
        break_glass_set_state(
            actor=actor,
            glass=glass,
            state=BreakGlassState.REFUSED,
            reason=reason,
            decision=decision,
        )


def break_glass_lapse(actor: Principal, glass: BreakGlass) -> None:
    """Let a locked, unconfirmed request lapse."""
    break_glass_set_state(
        actor=actor,
        glass=glass,
        state=BreakGlassState.LAPSED,
        reason="It was not confirmed within an hour.",
    )
