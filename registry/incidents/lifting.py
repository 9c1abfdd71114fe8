"""Lift a suspension after its incident is resolved, by a person who had no part in it."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import transaction

from governance.audit.services import Attempt, audit_record
from governance.errors import NotPermitted, WrongState
from governance.people.models import Person
from governance.people.proof import proof_facts, require_proof
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.principals import Principal
from governance.rowsecurity import lifted
from registry.incidents.changes import incident_for_change, note_write
from registry.incidents.models import REASON_MAX, Incident, IncidentState, NoteKind
from registry.incidents.states import STANDING, incident_subject
from registry.incidents.suspending import suspension_lift
from registry.releases.models import Release
from registry.validation import checked_text


@dataclass(frozen=True, slots=True)
class Lifted:
    """Objects that a lifted suspension restored, and those that stay suspended."""

    incident: Incident
    approved: list[Release]
    suspended: list[Release]


def incident_lift(*, actor: Principal, incident_id: int, reason: str) -> Lifted:
    """Lift the suspension by a resolved incident; releases serve again unless otherwise forbidden.

    Raises:
        InvalidInput: no reason, or one over 1,000 characters.
        NotFound, NotPermitted: the policy or separation of duties denies it, or the second factor
            is not recent.
        WrongState: the incident suspends nothing, or is not resolved.
    """
    reason = checked_text(reason, field="reason", limit=REASON_MAX)
    with transaction.atomic():
        incident, person, decision = incident_for_change(actor, incident_id, Action.INCIDENT_LIFT)
        with lifted():
            suspension = incident.suspensions.filter(lifted_at__isnull=True).first()
            if suspension is None:
                raise WrongState(f"Incident {incident.pk} suspends nothing; nothing was lifted.")
            if person.pk in suspension.excluded_people:
                raise _separated(actor, incident, person, decision)
            if IncidentState(incident.state) in STANDING:
                raise WrongState(
                    f"Incident {incident.pk} is {incident.get_state_display().lower()}; its "
                    "suspension cannot be lifted.",
                    hint="Resolve it first.",
                )
            proof = require_proof(
                actor,
                f"lifting the suspension by incident {incident.pk}",
                attempt=_attempt(actor, incident, decision),
            )
            approved, suspended = suspension_lift(
                actor=actor, incident=incident, reason=reason, decision=decision
            )
            audit_record(
                actor=actor,
                action=Action.INCIDENT_LIFT,
                subject=incident_subject(incident),
                reason=reason,
                department=incident.department.slug,
                data={
                    "approved": [release.pk for release in approved],
                    "still_suspended": [release.pk for release in suspended],
                    **proof_facts(proof),
                },
                decision=decision,
            )
            note_write(incident, person, NoteKind.LIFTED, reason)
    return Lifted(incident, approved, suspended)


def _separated(
    actor: Principal, incident: Incident, person: Person, decision: Authorization | None
) -> NotPermitted:
    why = "reported" if person.pk == incident.reporter_id else "had a part in what is suspended by"
    return NotPermitted(
        f"Separation of duties: {actor.name} {why} incident {incident.pk} and may not lift its "
        "suspension.",
        code="separation_of_duties",
        hint="Another reviewer for model risk or security lifts it.",
        attempt=_attempt(actor, incident, decision),
    )


def _attempt(actor: Principal, incident: Incident, decision: Authorization | None) -> Attempt:
    return Attempt(
        actor=actor,
        action=Action.INCIDENT_LIFT.value,
        subject=incident_subject(incident),
        department=incident.department.slug,
        decision=decision,
    )
