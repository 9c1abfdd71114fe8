"""Common steps of each change of an incident: lock its row, check permission, add the entry."""

from __future__ import annotations

from governance.errors import WrongState
from governance.people.models import Person
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.services import authorize
from governance.principals import Principal
from governance.rowsecurity import lifted
from registry.incidents.models import Incident, IncidentNote, IncidentState, NoteKind
from registry.incidents.selectors import incident_get, incident_resource
from registry.incidents.states import incident_locked
from registry.resources import acting_person

NOTES_MAX = 500


def incident_for_change(
    actor: Principal, incident_id: int, action: Action = Action.INCIDENT_UPDATE
) -> tuple[Incident, Person, Authorization]:
    """Return the incident, its row locked, for a person who may change it."""
    incident = incident_get(actor=actor, id=incident_id)
    with lifted():
        resource = incident_resource(incident)
    decision = authorize(actor=actor, action=action, resource=resource)
    person = acting_person(actor)
    with lifted():
        return incident_locked(incident_id), person, decision


def check_not_closed(incident: Incident) -> None:
    """Raise WrongState if the incident is closed."""
    if incident.state == IncidentState.CLOSED:
        raise WrongState(
            f"Incident {incident.pk} is closed; nothing can be added to it.", hint="Open a new one."
        )


def note_write(
    incident: Incident, person: Person | None, kind: NoteKind, text: str, detail: str = ""
) -> IncidentNote:
    """Add a line to the timeline. Raise WrongState for a note beyond 500."""
    if kind is NoteKind.NOTE and incident.notes.count() >= NOTES_MAX:
        raise WrongState(
            f"The timeline of incident {incident.pk} has {NOTES_MAX} lines; it takes no more notes."
        )
    return IncidentNote.objects.create(
        incident=incident, person=person, kind=kind, text=text, detail=detail[:200]
    )
