"""Incidents that Assay opens about hosted versions, and mails about them.

A provider may change a model behind its name, so Assay watches what cannot be pinned. A difference
or a drift is an incident: people investigate and resolve it, it names the releases that depend on
the version, and it can suspend them (ADR 63).
"""

from __future__ import annotations

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from governance.audit.services import audit_record
from governance.audit.streaming.sending import SendFailed
from governance.database.locks import lock
from governance.mail import mail_send
from governance.outgoing import outgoing_send_due
from governance.people.models import Person, Role
from governance.permissions import Action
from governance.principals import background, service_principal
from registry.incidents.changes import note_write
from registry.incidents.models import (
    HAPPENED_MAX,
    SUSPENDING,
    TITLE_MAX,
    Cause,
    Incident,
    IncidentNotice,
    IncidentState,
    IncidentVersion,
    NoteKind,
    Severity,
)
from registry.incidents.states import STANDING, incident_subject
from registry.incidents.suspending import incident_suspend
from registry.versions.models import ModelVersion

_CONTROLLER = service_principal("controller")
_LEADS_MAX = 100


@transaction.atomic
def incident_raise(
    *, cause: Cause, version: ModelVersion, title: str, happened: str, severity: Severity
) -> Incident | None:
    """Open an incident about a version, or rate the unresolved one of the same cause higher, and
    notify the leads of the departments concerned. Only for the control plane.

    A severity that suspends rates an unresolved incident higher only once: people may rate it lower
    again. Return None if nothing changed.
    """
    lock(f"incident:{cause}:{version.pk}")
    rows = Incident.objects.select_for_update(of=("self",))
    incident = rows.filter(about=version, cause=cause, state__in=STANDING).first()
    with background(f"version-{version.pk}", _CONTROLLER):
        if incident is None:
            incident = _open(cause, version, title, happened, severity)
        elif severity in SUSPENDING and not incident.suspensions.exists():
            _rate(incident, severity, happened)
        else:
            return None
        incident_suspend(actor=_CONTROLLER, incident=incident, decision=None)
        _mail_leads(incident)
    return incident


def _open(
    cause: Cause, version: ModelVersion, title: str, happened: str, severity: Severity
) -> Incident:
    incident = Incident.objects.create(
        title=title[:TITLE_MAX],
        happened=happened[:HAPPENED_MAX],
        severity=severity,
        cause=cause,
        about=version,
        aware_at=timezone.now(),
        department=version.model.department,
    )
    IncidentVersion.objects.create(incident=incident, version=version)
    audit_record(
        actor=_CONTROLLER,
        action=Action.INCIDENT_OPEN,
        subject=incident_subject(incident),
        reason=incident.title,
        department=incident.department.slug,
        data={"severity": severity, "cause": cause, "versions": [version.digest]},
    )
    return incident


def _rate(incident: Incident, severity: Severity, text: str) -> None:
    before, incident.severity = incident.severity, severity
    incident.save(update_fields=["severity"])
    audit_record(
        actor=_CONTROLLER,
        action="incident:rate",
        subject=incident_subject(incident),
        reason=text[:1000],
        department=incident.department.slug,
        data={"before": {"severity": before}, "after": {"severity": severity}},
    )
    note_write(incident, None, NoteKind.SEVERITY, text, f"{before} → {severity}")


def _mail_leads(incident: Incident) -> None:
    """Queue a mail to each lead of the departments concerned."""
    if settings.MAIL_SERVER is None:
        return
    leads = Person.objects.filter(
        is_active=True,
        role_assignments__role=Role.LEAD,
        role_assignments__department__in=incident.departments.all(),
    ).exclude(email="")
    people = leads.order_by("pk").distinct().values_list("pk", flat=True)[:_LEADS_MAX]
    now = timezone.now()
    IncidentNotice.objects.bulk_create(
        IncidentNotice(incident=incident, person_id=pk, next_at=now) for pk in people
    )


def incident_notices_send_due() -> int:
    """Send due mails about incidents; return the number of accepted ones."""
    rows = IncidentNotice.objects.select_related("incident__department", "person")
    return outgoing_send_due(rows, send=_send, needless=_skip_reason)


def _skip_reason(notice: IncidentNotice) -> str:
    if notice.incident.state not in (IncidentState.OPEN, IncidentState.INVESTIGATING):
        return "The incident is resolved."
    if not notice.person.is_active or not notice.person.email:
        return "The person has left."
    return ""


def _send(notice: IncidentNotice) -> None:
    if settings.MAIL_SERVER is None:
        raise SendFailed("No mail server is set.")
    mail_send(
        settings.MAIL_SERVER,
        to=notice.person.email,
        subject=f"{notice.incident.get_severity_display()} incident: {notice.incident.title}",
        text=notice_text(notice.incident),
        message_id=f"assay-incident-notice-{notice.pk}",
    )


def notice_text(incident: Incident) -> str:
    """Return the mail's text. Its link grants no access: it leads to a page behind sign-in."""
    suspends = incident.suspensions.filter(lifted_at__isnull=True).exists()
    lines = [
        incident.happened,
        "",
        "The affected releases are suspended."
        if suspends
        else "No release is suspended. Rate the incident higher to suspend them.",
        f"{settings.PORTAL_URL}/incidents/{incident.pk}",
        "",
        "You get this because you lead a department that owns or uses the version.",
    ]
    return "\n".join(lines) + "\n"
