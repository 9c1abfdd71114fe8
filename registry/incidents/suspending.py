"""Suspend serving because of an incident, and lift the suspension.

Callers lock the incident's row. The functions here take the lineage's lock (`lineage_locked`), as
recalls and registrations do; approvals and deployments wait for the rows of the releases.
"""

from __future__ import annotations

from collections.abc import Collection

from django.utils import timezone

from governance.people.credentials import with_sign_in_admins
from governance.policy.decisions import Authorization
from governance.principals import Principal
from governance.reviews.models import Review
from registry.incidents.models import SUSPENDING, Incident, IncidentSuspension, Severity
from registry.incidents.reach import suspended_by
from registry.releases.emergency_access.states import emergency_accesses_over
from registry.releases.models import Release, ReleaseState
from registry.releases.separation import people_behind
from registry.releases.states import releases_move
from registry.versions.models import ModelVersion
from registry.versions.recall import lineage_locked

# May serve, or might again.
_SERVABLE = (ReleaseState.APPROVED, ReleaseState.SUSPENDED)


def incident_suspend(
    *, actor: Principal, incident: Incident, decision: Authorization | None
) -> list[Release]:
    """Suspend every approved release that the incident's versions reach; return them.
    Do nothing if the severity is neither high nor critical and no suspension is in force.
    """
    linked = list(incident.links.order_by("pk").values_list("version_id", flat=True))
    ids = lineage_locked(*linked)
    concern(incident, ids)
    suspension = incident.suspensions.filter(lifted_at__isnull=True).first()
    if suspension is None and Severity(incident.severity) not in SUSPENDING:
        return []
    people = excluded_people(incident, linked, ids)
    if suspension is None:
        IncidentSuspension.objects.create(incident=incident, excluded_people=people)
    else:
        suspension.excluded_people = sorted({*suspension.excluded_people, *people})
        suspension.save(update_fields=["excluded_people"])
    reason = f"Incident {incident.pk} is {incident.severity}."
    emergency_accesses_over(
        actor=actor,
        release_ids=list(Release.objects.filter(version_id__in=ids).values_list("pk", flat=True)),
        reason=reason,
        decision=decision,
    )
    return releases_move(
        actor=actor,
        releases=_releases(ids, ReleaseState.APPROVED),
        to=ReleaseState.SUSPENDED,
        reason=reason,
        decision=decision,
    )


def suspension_lift(
    *, actor: Principal, incident: Incident, reason: str, decision: Authorization | None
) -> tuple[list[Release], list[Release]]:
    """Lift the suspension in force; return the releases that are approved again, and those that
    stay suspended because another incident suspends them too or their approval is over.
    """
    linked = list(incident.links.values_list("version_id", flat=True))
    ids = lineage_locked(*linked)
    incident.suspensions.filter(lifted_at__isnull=True).update(
        lifted_at=timezone.now(), lifted_by_id=actor.person_id, lift_reason=reason
    )
    suspensions = suspended_by(ids)
    now = timezone.now()
    suspended = list(_releases(ids, ReleaseState.SUSPENDED))
    free = [
        release
        for release in suspended
        if release.version_id not in suspensions
        and release.serves_until is not None
        and release.serves_until > now
    ]
    approved = releases_move(
        actor=actor,
        releases=free,
        to=ReleaseState.APPROVED,
        reason=f"The suspension by incident {incident.pk} is lifted: {reason}"[:1000],
        decision=decision,
    )
    approved_ids = {release.pk for release in approved}
    return approved, [release for release in suspended if release.pk not in approved_ids]


def excluded_people(incident: Incident, linked: Collection[int], ids: Collection[int]) -> list[int]:
    """Return the people who may not lift the suspension: those who reported the incident or added a
    version, and those with a part in its versions, in versions built on them (`ids`), or, by their
    reviews, in releases of these.
    """
    added_by = incident.links.values_list("added_by_id", flat=True)
    people = {pk for pk in (incident.reporter_id, *added_by) if pk is not None}
    for version in ModelVersion.objects.filter(pk__in=linked):
        people |= people_behind(version)
    below = ModelVersion.objects.filter(pk__in=ids)
    for maker in ("created_by_id", "model__created_by_id", "dataset_version__created_by_id"):
        people.update(pk for pk in below.values_list(maker, flat=True) if pk is not None)
    releases = [str(release.pk) for state in _SERVABLE for release in _releases(ids, state)]
    reviews = Review.objects.filter(subject_type="release", subject_id__in=releases)
    for excluded in reviews.values_list("excluded_people", flat=True):
        people.update(excluded)
    return sorted(with_sign_in_admins(people))


def concern(incident: Incident, ids: Collection[int]) -> None:
    """Add the departments concerned: owners of the versions it reaches, and those that may use one.
    None is ever removed."""
    owners = ModelVersion.objects.filter(pk__in=ids).values_list("model__department_id", flat=True)
    users = Release.objects.filter(version_id__in=ids, state__in=_SERVABLE).values_list(
        "departments__pk", flat=True
    )
    incident.departments.add(*{pk for pk in (*owners, *users) if pk is not None})


def _releases(ids: Collection[int], state: ReleaseState) -> list[Release]:
    return list(
        Release.objects.filter(version_id__in=ids, state=state)
        .select_related("department", "version")
        .only(
            "state",
            "dossier_digest",
            "approved_at",
            "expires_at",
            "grace_days",
            "conditions",
            "department__slug",
            "version__digest",
        )
        .order_by("pk")
    )
