"""Reads of incidents; a department sees those that affect versions that it owns or uses."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Exists, OuterRef, Prefetch, Q, QuerySet

from governance.database.narrow import narrowed
from governance.errors import NotFound
from governance.permissions import Action
from governance.policy.engine import Resource
from governance.policy.selectors import visible_to
from governance.principals import Principal
from governance.rowsecurity import lifted
from registry.incidents.models import (
    SUSPENDING,
    Incident,
    IncidentNote,
    IncidentState,
    IncidentSuspension,
    IncidentVersion,
)
from registry.incidents.reach import suspended_by
from registry.incidents.states import STANDING
from registry.releases.models import Release, ReleaseState
from registry.releases.selectors import releases_visible_to
from registry.versions.models import ModelVersion
from registry.versions.recall import LISTED, versions_below
from registry.versions.selectors import versions_visible_to

# Columns that are large and not needed here.
_HEAVY = ("manifest", "card", "base__manifest", "base__card")


@dataclass(frozen=True, slots=True)
class Reached:
    """Versions that depend on an incident's versions, including these, and their releases: at most
    200 each that the actor may see, and the total numbers.
    """

    versions: list[ModelVersion]
    releases: list[Release]
    versions_total: int
    releases_total: int
    release_ids: list[int]


def incidents_visible_to(actor: Principal) -> QuerySet[Incident]:
    """Incidents that `actor` may see, newest first; `suspends` is true while one suspends."""
    in_force = IncidentSuspension.objects.filter(incident=OuterRef("pk"), lifted_at__isnull=True)
    rows = Incident.objects.select_related("department", "reporter").annotate(
        suspends=Exists(in_force)
    )
    rows = rows.prefetch_related(
        Prefetch("links", IncidentVersion.objects.select_related("version__model"))
    )
    return visible_to(actor, Action.INCIDENT_VIEW, rows, resource_type="incident")


def incident_get(*, actor: Principal, id: int) -> Incident:  # noqa: A002
    """Return an incident; raise NotFound if it does not exist or `actor` may not see it."""
    incident = incidents_visible_to(actor).filter(pk=id).first()
    if incident is None:
        raise NotFound(f"Incident {id} does not exist, or you may not see it.")
    return incident


def incidents_pressing(actor: Principal) -> QuerySet[Incident]:
    """Unresolved incidents of high or critical severity."""
    return incidents_visible_to(actor).filter(state__in=STANDING, severity__in=SUSPENDING)


def incident_notes(incident: Incident) -> list[IncidentNote]:
    """Return the timeline of an incident that the actor may see, oldest line first."""
    return list(incident.notes.select_related("person"))


def incident_suspensions(incident: Incident) -> list[IncidentSuspension]:
    """Return every suspension by the incident, with the person who lifted it."""
    return list(incident.suspensions.select_related("lifted_by"))


def incident_reaches(actor: Principal, incident: Incident) -> Reached:
    """Return the versions that depend on the incident's, and their releases."""
    linked = [link.version_id for link in incident.links.all()]
    with lifted():
        ids = versions_below(*linked)
        affected = Release.objects.filter(version_id__in=ids)
        affected = affected.filter(state__in=(ReleaseState.APPROVED, ReleaseState.SUSPENDED))
        release_ids = list(affected.order_by("pk").values_list("pk", flat=True))
    versions = versions_visible_to(actor).filter(pk__in=ids).defer(*_HEAVY)
    releases = releases_visible_to(actor).filter(pk__in=release_ids)
    releases = releases.defer("dossier", "version__manifest", "version__card")
    return Reached(
        versions=list(versions.order_by("pk")[:LISTED]),
        releases=list(releases.order_by("pk")[:LISTED]),
        versions_total=len(ids),
        releases_total=len(release_ids),
        release_ids=release_ids,
    )


def incidents_of(actor: Principal, version_id: int) -> list[Incident]:
    """Return incidents that name the version, or suspend it through its bases, and are not closed;
    at most five, newest first."""
    named = IncidentVersion.objects.filter(incident=OuterRef("pk"), version=version_id)
    suspending = suspended_by([version_id]).get(version_id)
    rows = incidents_visible_to(actor).exclude(state=IncidentState.CLOSED)
    rows = rows.filter(Q(Exists(named)) | Q(pk=suspending or 0))
    return list(narrowed(rows, "title", "severity", "state")[:5])


def incident_resource(incident: Incident) -> Resource:
    """Return an incident as policy decisions see it."""
    return Resource(
        type="incident",
        id=str(incident.pk),
        name=str(incident),
        department=incident.department.slug,
        attributes={
            "departments": sorted(each.slug for each in incident.departments.all()),
            "reporter": incident.reporter_id,
            "severity": incident.severity,
        },
    )


def reporting_resource(version: ModelVersion) -> Resource:
    """Return an incident that is about to be reported of a version, as policy decisions see it: of
    the version's owner, and concerning the departments that may use the version."""
    users = Release.objects.filter(
        version=version, state__in=(ReleaseState.APPROVED, ReleaseState.SUSPENDED)
    ).values_list("departments__slug", flat=True)
    owner = version.model.department.slug
    return Resource(
        type="incident",
        name=f"incident of {version}",
        department=owner,
        attributes={
            "departments": sorted({owner, *(slug for slug in users if slug)}),
            "reporter": None,
            "severity": "",
        },
    )
