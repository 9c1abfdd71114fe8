"""Open an incident, change it, and keep its timeline."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from django.db import transaction
from django.utils import timezone

from governance.audit.services import audit_record
from governance.errors import InvalidInput, NotFound, WrongState
from governance.permissions import Action
from governance.policy.decisions import Authorization
from governance.policy.services import authorize
from governance.principals import Principal
from governance.rowsecurity import lifted
from registry.incidents.changes import check_not_closed, incident_for_change, note_write
from registry.incidents.models import (
    HAPPENED_MAX,
    REASON_MAX,
    TEXT_MAX,
    TITLE_MAX,
    VERSIONS_MAX,
    Incident,
    IncidentNote,
    IncidentState,
    IncidentVersion,
    NoteKind,
    Serious,
    Severity,
)
from registry.incidents.selectors import reporting_resource
from registry.incidents.states import (
    STANDING,
    incident_set_state,
    incident_subject,
)
from registry.incidents.suspending import incident_suspend
from registry.resources import acting_person
from registry.validation import checked_choice, checked_text
from registry.versions.models import ModelVersion


def incident_open(
    *,
    actor: Principal,
    title: str,
    happened: str,
    severity: str,
    versions: Collection[int],
    serious: str = "",
    aware_at: datetime | None = None,
) -> Incident:
    """Report an incident with some versions. High or critical severity suspends every approved
    release of them, and of versions built on them, in the same transaction.

    Raises:
        InvalidInput: a malformed field, no version or more than 20, or a time in the future.
        NotFound, NotPermitted: a version does not exist, or the policy refuses.
    """
    title = checked_text(title, field="title", limit=TITLE_MAX)
    happened = checked_text(happened, field="happened", limit=HAPPENED_MAX)
    checked_choice(severity, list(Severity.values), field="severity")
    checked_choice(serious, list(Serious.values), field="serious")
    version_ids = list(dict.fromkeys(versions))
    _check_count(len(version_ids))
    now = timezone.now()
    if aware_at is not None and aware_at > now:
        sentence = "The time when the organization became aware of it is in the future."
        raise InvalidInput(sentence, fields={"aware_at": [sentence]})
    with transaction.atomic():
        reported = [_reportable(actor, version_id) for version_id in version_ids]
        decision = reported[0][1]
        person = acting_person(actor)
        with lifted():
            first = reported[0][0]
            incident = Incident.objects.create(
                title=title,
                happened=happened,
                severity=severity,
                serious=serious,
                aware_at=aware_at or now,
                department=first.model.department,
                reporter=person,
            )
            for version, _ in reported:
                IncidentVersion.objects.create(incident=incident, version=version, added_by=person)
            audit_record(
                actor=actor,
                action=Action.INCIDENT_OPEN,
                subject=incident_subject(incident),
                reason=title,
                department=incident.department.slug,
                data={
                    "severity": severity,
                    "serious": serious,
                    "versions": [version.digest for version, _ in reported],
                },
                decision=decision,
            )
            incident_suspend(actor=actor, incident=incident, decision=decision)
    return incident


def incident_note(*, actor: Principal, incident_id: int, text: str) -> IncidentNote:
    """Add a line to the timeline; it cannot be changed later.

    Raises:
        InvalidInput: no text, or one over 2,000 characters.
        NotFound, NotPermitted: the policy refuses.
        WrongState: the incident is closed, or has 500 lines.
    """
    text = checked_text(text, field="text", limit=TEXT_MAX)
    with transaction.atomic():
        incident, person, decision = incident_for_change(actor, incident_id)
        with lifted():
            check_not_closed(incident)
            audit_record(
                actor=actor,
                action="incident:note",
                subject=incident_subject(incident),
                reason=text[:REASON_MAX],
                department=incident.department.slug,
                decision=decision,
            )
            return note_write(incident, person, NoteKind.NOTE, text)


def incident_move(*, actor: Principal, incident_id: int, state: str, text: str) -> Incident:
    """Change the state of an incident. Resolving it does not lift its suspension; reopening one of
    high or critical severity suspends again.

    Raises:
        InvalidInput: an unknown state, or no text.
        NotFound, NotPermitted: the policy refuses.
        WrongState: the transition is not allowed, or it would close while it suspends.
    """
    checked_choice(state, list(IncidentState.values), field="state")
    text = checked_text(text, field="text", limit=TEXT_MAX)
    with transaction.atomic():
        incident, person, decision = incident_for_change(actor, incident_id)
        with lifted():
            before = incident.get_state_display()
            in_force = incident.suspensions.filter(lifted_at__isnull=True)
            if state == IncidentState.CLOSED and in_force.exists():
                raise WrongState(
                    f"Incident {incident.pk} still suspends; it cannot be closed.",
                    hint="A reviewer for model risk or security lifts the suspension first.",
                )
            incident_set_state(
                actor=actor,
                incident=incident,
                state=IncidentState(state),
                reason=text[:REASON_MAX],
                decision=decision,
            )
            detail = f"{before} → {incident.get_state_display()}".lower()
            note_write(incident, person, NoteKind.STATE, text, detail)
            if IncidentState(state) in STANDING:
                incident_suspend(actor=actor, incident=incident, decision=decision)
    return incident


def incident_rate(
    *, actor: Principal, incident_id: int, severity: str, serious: str, text: str
) -> Incident:
    """Change the severity. Raising it to high or critical suspends at once; lowering lifts nothing.

    Raises:
        InvalidInput: an unknown severity or kind, or no text.
        NotFound, NotPermitted: the policy refuses.
        WrongState: the incident is closed, or already has this severity.
    """
    checked_choice(severity, list(Severity.values), field="severity")
    checked_choice(serious, list(Serious.values), field="serious")
    text = checked_text(text, field="text", limit=TEXT_MAX)
    with transaction.atomic():
        incident, person, decision = incident_for_change(actor, incident_id)
        with lifted():
            check_not_closed(incident)
            before = {"severity": incident.severity, "serious": incident.serious}
            after = {"severity": severity, "serious": serious}
            if before == after:
                raise WrongState(f"Incident {incident.pk} already has severity {severity}.")
            incident.severity, incident.serious = severity, serious
            incident.save(update_fields=["severity", "serious"])
            audit_record(
                actor=actor,
                action="incident:rate",
                subject=incident_subject(incident),
                reason=text[:REASON_MAX],
                department=incident.department.slug,
                data={"before": before, "after": after},
                decision=decision,
            )
            detail = f"{before['severity']} → {severity}" if before["severity"] != severity else ""
            if before["serious"] != serious:
                detail += f"{'; ' if detail else ''}{Serious(serious).label}"
            note_write(incident, person, NoteKind.SEVERITY, text, detail)
            if IncidentState(incident.state) in STANDING:
                incident_suspend(actor=actor, incident=incident, decision=decision)
    return incident


def incident_add_version(
    *, actor: Principal, incident_id: int, version_id: int, text: str
) -> Incident:
    """Add a version to an incident; it is suspended at once if the incident suspends.

    Raises:
        InvalidInput: no text.
        NotFound, NotPermitted: the incident or version does not exist, or the policy refuses.
        WrongState: the incident is closed, or has the version or 20 versions already.
    """
    text = checked_text(text, field="text", limit=TEXT_MAX)
    with transaction.atomic():
        incident, person, decision = incident_for_change(actor, incident_id)
        version, _ = _reportable(actor, version_id)
        with lifted():
            check_not_closed(incident)
            linked = set(incident.links.values_list("version_id", flat=True))
            if version.pk in linked or len(linked) >= VERSIONS_MAX:
                why = "names it already" if version.pk in linked else f"names {VERSIONS_MAX}"
                raise WrongState(f"{version} was not added: incident {incident.pk} {why}.")
            IncidentVersion.objects.create(incident=incident, version=version, added_by=person)
            audit_record(
                actor=actor,
                action="incident:add_version",
                subject=incident_subject(incident),
                reason=text[:REASON_MAX],
                department=incident.department.slug,
                data={"version": version.digest},
                decision=decision,
            )
            # By number: readers of the timeline may not see that department's models.
            note_write(incident, person, NoteKind.VERSION, text, f"version {version.pk}")
            incident_suspend(actor=actor, incident=incident, decision=decision)
    return incident


def _reportable(actor: Principal, version_id: int) -> tuple[ModelVersion, Authorization]:
    """Return a version that the actor may report, even if they may not see it."""
    unknown = f"Version {version_id} does not exist, or you may not see it."
    with lifted():
        rows = ModelVersion.objects.select_related("model__department")
        version = rows.filter(pk=version_id).first()
        if version is None:
            raise NotFound(unknown)
        resource = reporting_resource(version)
    try:
        decision = authorize(actor=actor, action=Action.INCIDENT_OPEN, resource=resource)
    except NotFound as error:
        raise NotFound(unknown, attempt=error.attempt) from error
    return version, decision


def _check_count(count: int) -> None:
    if not 1 <= count <= VERSIONS_MAX:
        sentence = f"An incident names 1 to {VERSIONS_MAX} versions; {count} were named."
        raise InvalidInput(sentence, fields={"versions": [sentence]})
