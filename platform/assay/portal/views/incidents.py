"""Incidents: the list, the report form, and the page of one incident."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import redirect

from assay.portal.access import may
from assay.portal.forms.emergency import IncidentForm, IncidentRateForm
from assay.portal.http import ActionScreen, cleaned, number_in, posted
from assay.portal.lists import ListScreen, states
from governance.english import counted
from governance.errors import InvalidInput
from governance.permissions import Action
from registry.incidents.lifting import incident_lift
from registry.incidents.models import Incident, IncidentState, NoteKind
from registry.incidents.schemas import IncidentFilter
from registry.incidents.selectors import (
    incident_get,
    incident_notes,
    incident_reaches,
    incident_resource,
    incident_suspensions,
    incidents_visible_to,
)
from registry.incidents.services import (
    incident_add_version,
    incident_move,
    incident_note,
    incident_open,
    incident_rate,
)
from registry.incidents.states import ALLOWED_TRANSITIONS, STANDING
from registry.versions.models import ModelVersion
from registry.versions.selectors import version_get, versions_visible_to
from workers.deployments.selectors import deployment_get

VERSIONS_OFFERED = 200
MOVES = {
    IncidentState.INVESTIGATING: "Investigate",
    IncidentState.RESOLVED: "Resolve",
    IncidentState.CLOSED: "Close for good",
}


class Incidents(ListScreen):
    """Every incident of versions that the person's departments own or use."""

    template_name = "portal/incidents/list.html"
    title = "Incidents"
    lead = (
        "Problems with versions that you own, use or oversee. High and critical incidents suspend "
        "the affected releases."
    )
    columns = "Incident | Severity | State | About | Serving | Reported"
    filters = IncidentFilter
    toolbar = (
        states([("standing", "not resolved"), ("", "any"), *IncidentState.choices], none=""),
    )

    def rows(self) -> QuerySet[Incident]:
        rows = incidents_visible_to(self.actor)
        if self.request.GET.get("state", "standing") == "standing":
            return rows.filter(state__in=STANDING)
        return rows


class IncidentNew(ActionScreen):
    """Report an incident of a version, or of the version that a deployment runs."""

    template_name = "portal/incidents/new.html"

    def form(self) -> IncidentForm:
        return IncidentForm(self.request.POST or None, initial={"severity": "medium"})

    def about(self) -> tuple[str, int, ModelVersion]:
        """Return the type and number of the object that the report names, and its version."""
        for name in ("version", "deployment"):
            number = number_in(self.request.POST, name) or number_in(self.request.GET, name)
            if number is not None and name == "version":
                return name, number, version_get(actor=self.actor, id=number)
            if number is not None:
                deployment = deployment_get(actor=self.actor, deployment_id=number)
                return name, number, deployment.release.version
        raise InvalidInput(
            "Name the version.",
            hint="Report an incident from the page of a version or of a deployment.",
        )

    def context(self, **kwargs: Any) -> dict[str, Any]:
        source, number, version = self.about()
        return {"form": self.form(), "source": source, "number": number, "version": version}

    def act(self, **kwargs: Any) -> HttpResponse:
        _, _, version = self.about()
        incident = incident_open(actor=self.actor, versions=[version.pk], **cleaned(self.form()))
        return self.done(f"Incident {incident.pk} is reported.", "portal:incident", id=incident.pk)


class IncidentPage(ActionScreen):
    """One incident: description, affected objects, and timeline."""

    template_name = "portal/incidents/incident.html"

    def context(self, *, id: int, **kwargs: Any) -> dict[str, Any]:  # noqa: A002
        incident = incident_get(actor=self.actor, id=id)
        suspensions = incident_suspensions(incident)
        standing = next((each for each in suspensions if each.lifted_at is None), None)
        moves = [
            (state, MOVES[state])
            for state in sorted(ALLOWED_TRANSITIONS[IncidentState(incident.state)], key=str)
        ]
        may_update = self.may(incident, Action.INCIDENT_UPDATE)
        return {
            "incident": incident,
            "reached": incident_reaches(self.actor, incident),
            "notes": incident_notes(incident),
            "suspensions": suspensions,
            "standing": standing,
            "moves": moves,
            "may_update": may_update,
            "versions": self.versions(incident) if may_update else [],
            "lift": self.lift(incident, standing),
            "rate": IncidentRateForm(
                posted(self.request, "incident_rate"),
                initial={"severity": incident.severity, "serious": incident.serious},
            ),
            "is_closed": incident.state == IncidentState.CLOSED,
            "lifted_kind": NoteKind.LIFTED,
        }

    def versions(self, incident: Incident) -> QuerySet[ModelVersion]:
        """Return the newest versions that the person can add to the incident."""
        rows = versions_visible_to(self.actor).exclude(pk__in=incident.links.values("version"))
        return rows.order_by("-created_at")[:VERSIONS_OFFERED]

    def may(self, incident: Incident, action: Action) -> bool:
        resource = incident_resource(incident)
        return may(
            self.actor, action, kind="incident", department=resource.department,
            attributes=resource.attributes,
        )  # fmt: skip

    def lift(self, incident: Incident, standing: Any) -> dict[str, str] | None:
        """Return the offer to lift suspensions, with the obstacle if it is disabled."""
        if standing is None or not self.may(incident, Action.INCIDENT_LIFT):
            return None
        blocked = ""
        if self.actor.person_id in standing.excluded_people:
            blocked = (
                "You reported it or had a part in what it suspends; another reviewer must lift it."
            )
        elif incident.state in STANDING:
            blocked = "Resolve it first."
        return {"blocked": blocked}


class IncidentNoteNew(IncidentPage):
    """Add a note to an incident's timeline."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        incident_note(actor=self.actor, incident_id=id, text=self.request.POST.get("text", ""))
        return redirect("portal:incident", id=id)


class IncidentMove(IncidentPage):
    """Change an incident's status."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        post = self.request.POST
        incident_move(
            actor=self.actor, incident_id=id, state=post.get("state", ""),
            text=post.get("text", ""),
        )  # fmt: skip
        return self.done(f"The incident is {post.get('state', '')}.", "portal:incident", id=id)


class IncidentRate(IncidentPage):
    """Change an incident's severity."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        values = cleaned(IncidentRateForm(self.request.POST))
        incident_rate(actor=self.actor, incident_id=id, **values)
        return self.done("Severity changed.", "portal:incident", id=id)


class IncidentVersionAdd(IncidentPage):
    """Add a version to an incident."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        version_id = number_in(self.request.POST, "version")
        if version_id is None:
            raise InvalidInput(
                "No version is chosen.", fields={"version": ["Choose the version to add."]}
            )
        incident_add_version(
            actor=self.actor, incident_id=id, version_id=version_id,
            text=self.request.POST.get("text", ""),
        )  # fmt: skip
        return self.done("The version is added.", "portal:incident", id=id)


class IncidentLift(IncidentPage):
    """Lift an incident's suspensions."""

    def act(self, *, id: int, **kwargs: Any) -> HttpResponse:  # noqa: A002
        done = incident_lift(
            actor=self.actor, incident_id=id, reason=self.request.POST.get("reason", "")
        )
        return self.done(
            f"Lifted: {counted(len(done.approved), 'release')} approved again, "
            f"{len(done.suspended)} still suspended.",
            "portal:incident",
            id=id,
        )
