"""The state machine of an incident: one table, and the function that moves a locked one."""

from __future__ import annotations

from django.utils import timezone

from governance.audit.services import Subject, audit_record
from governance.errors import NotFound, WrongState
from governance.policy.decisions import Authorization
from governance.principals import Principal
from registry.incidents.models import Incident, IncidentState

ALLOWED_TRANSITIONS: dict[IncidentState, frozenset[IncidentState]] = {
    IncidentState.OPEN: frozenset({IncidentState.INVESTIGATING}),
    IncidentState.INVESTIGATING: frozenset({IncidentState.RESOLVED}),
    IncidentState.RESOLVED: frozenset({IncidentState.CLOSED, IncidentState.INVESTIGATING}),
    IncidentState.CLOSED: frozenset(),
}
STANDING = frozenset({IncidentState.OPEN, IncidentState.INVESTIGATING})


def incident_subject(incident: Incident) -> Subject:
    """The incident as the audit log names it."""
    return Subject(type="incident", id=str(incident.pk), name=str(incident))


def incident_locked(incident_id: int) -> Incident:
    """The incident, its row locked until the transaction ends.

    Raises:
        NotFound: there is none.
    """
    rows = Incident.objects.select_for_update(of=("self",)).select_related("department")
    incident = rows.filter(pk=incident_id).first()
    if incident is None:
        raise NotFound("There is no such incident.")
    return incident


def incident_set_state(
    *,
    actor: Principal,
    incident: Incident,
    state: IncidentState,
    reason: str,
    decision: Authorization | None,
) -> None:
    """Move a locked incident, save and audit it.

    Raises:
        WrongState: there is no way from where it stands.
    """
    before = IncidentState(incident.state)
    ways = ALLOWED_TRANSITIONS[before]
    if state not in ways:
        listed = " or ".join(sorted(way.label.lower() for way in ways))
        raise WrongState(
            f"Incident {incident.pk} is {before.label.lower()}; it cannot become "
            f"{state.label.lower()}.",
            hint=f"From there it can become {listed}." if ways else "That state is final.",
        )
    incident.state = state
    if state is IncidentState.RESOLVED:
        incident.resolved_at = timezone.now()
    if state is IncidentState.CLOSED:
        incident.closed_at = timezone.now()
    incident.save(update_fields=["state", "resolved_at", "closed_at"])
    audit_record(
        actor=actor,
        action=f"incident:{state.value}",
        subject=incident_subject(incident),
        reason=reason,
        department=incident.department.slug,
        data={"before": before.value, "after": state.value},
        decision=decision,
    )
