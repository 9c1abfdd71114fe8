"""Transitions of an incident."""

from __future__ import annotations

from django.utils import timezone

from governance.audit.services import Subject
from governance.policy.decisions import Authorization
from governance.principals import Principal
from governance.state_machine import StateMachine
from registry.incidents.models import Incident, IncidentState

ALLOWED_TRANSITIONS: dict[IncidentState, frozenset[IncidentState]] = {
    IncidentState.OPEN: frozenset({IncidentState.INVESTIGATING}),
    IncidentState.INVESTIGATING: frozenset({IncidentState.RESOLVED}),
    IncidentState.RESOLVED: frozenset({IncidentState.CLOSED, IncidentState.INVESTIGATING}),
    IncidentState.CLOSED: frozenset(),
}
INCIDENT_STATES = StateMachine(
    model=Incident, noun="incident", table=ALLOWED_TRANSITIONS, related=("department",)
)
incident_locked = INCIDENT_STATES.locked
STANDING = frozenset({IncidentState.OPEN, IncidentState.INVESTIGATING})


def incident_subject(incident: Incident) -> Subject:
    """Return the incident as the audit log names it."""
    return Subject(type="incident", id=str(incident.pk), name=str(incident))


def incident_set_state(
    *,
    actor: Principal,
    incident: Incident,
    state: IncidentState,
    reason: str,
    decision: Authorization | None,
) -> None:
    """Move a locked incident to `state`, save and audit it.

    Raises:
        WrongState: the transition is not allowed.
    """
    if state is IncidentState.RESOLVED:
        incident.resolved_at = timezone.now()
    if state is IncidentState.CLOSED:
        incident.closed_at = timezone.now()
    INCIDENT_STATES.move(
        incident,
        state,
        fields=["resolved_at", "closed_at"],
        actor=actor,
        action=f"incident:{state.value}",
        subject=incident_subject(incident),
        reason=reason,
        department=incident.department.slug,
        decision=decision,
    )
