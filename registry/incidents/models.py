"""Incidents with model versions, and the suspensions that they cause."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from governance.outgoing import Outgoing

REASON_MAX = 1000
TEXT_MAX = 2000
HAPPENED_MAX = 4000
TITLE_MAX = 120
VERSIONS_MAX = 20


class IncidentState(models.TextChoices):
    """State of an incident. A resolved one can be reopened; a closed one is final."""

    OPEN = "open"
    INVESTIGATING = "investigating"
    RESOLVED = "resolved"
    CLOSED = "closed"


class Severity(models.TextChoices):
    """Severity of an incident; `high` and `critical` suspend the releases that it affects."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


SUSPENDING = frozenset({Severity.HIGH, Severity.CRITICAL})


class Serious(models.TextChoices):
    """Kind of serious incident under Art. 3(49) of the EU AI Act, if it is one. Art. 73 sets the
    deadline of each for reporting to the market surveillance authority.
    """

    NO = "", "not a serious incident"
    GENERAL = "general", "serious: report within 15 days (Art. 73(2))"
    # A widespread infringement, or critical infrastructure disrupted.
    WIDESPREAD = "widespread", "serious and widespread: report within 2 days (Art. 73(3))"
    DEATH = "death", "serious, a death: report within 10 days (Art. 73(4))"


REPORT_DAYS = {Serious.GENERAL: 15, Serious.WIDESPREAD: 2, Serious.DEATH: 10}


class Cause(models.TextChoices):
    """Origin of an incident. A person reports it; or Assay opens it, when the answers of a hosted
    version state another model or fingerprint than its description, or when a repeated evaluation
    of it leaves the intervals of the first one."""

    REPORTED = "", "reported"
    DIFFERS = "provider_differs", "the provider answers as another model"
    DRIFT = "drift", "measured drift"


class Incident(models.Model):
    """A reported event, its severity, and the departments concerned: those that own an affected
    version, and those that may use one. `department` owns the first version named.

    One that Assay opened has no reporter; `about` is then the version that it watched.
    """

    title = models.CharField(max_length=TITLE_MAX)
    happened = models.TextField(max_length=HAPPENED_MAX)
    severity = models.CharField(max_length=10, choices=Severity.choices)
    serious = models.CharField(max_length=12, choices=Serious.choices, blank=True)
    aware_at = models.DateTimeField(help_text="Time at which the organization became aware of it.")
    department = models.ForeignKey(
        "governance.Department", on_delete=models.PROTECT, related_name="incidents"
    )
    departments = models.ManyToManyField("governance.Department", related_name="+")
    state = models.CharField(
        max_length=14, choices=IncidentState.choices, default=IncidentState.OPEN, db_index=True
    )
    reporter = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    cause = models.CharField(
        max_length=20, choices=Cause.choices, blank=True, default="", db_default=""
    )
    about = models.ForeignKey(
        "registry.ModelVersion",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="findings",
    )
    opened_at = models.DateTimeField(auto_now_add=True)
    resolved_at = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                name="resolved_incident_says_when",
                condition=~Q(state__in=("resolved", "closed")) | Q(resolved_at__isnull=False),
            ),
            models.CheckConstraint(
                name="incident_has_reporter_or_cause",
                condition=Q(cause="", reporter__isnull=False, about__isnull=True)
                | ~Q(cause="") & Q(reporter__isnull=True, about__isnull=False),
            ),
            models.UniqueConstraint(
                name="one_unresolved_finding_of_a_cause",
                fields=("about", "cause"),
                condition=Q(about__isnull=False, state__in=("open", "investigating")),
            ),
        )

    def __str__(self) -> str:
        return f"incident {self.pk}"

    @property
    def report_by(self) -> datetime | None:
        """Deadline for reporting a serious incident to the authority; None for other incidents."""
        days = REPORT_DAYS.get(Serious(self.serious))
        return None if days is None else self.aware_at + timedelta(days=days)


class IncidentVersion(models.Model):
    """A version that the incident names; versions built on it are affected too."""

    incident = models.ForeignKey(Incident, on_delete=models.PROTECT, related_name="links")
    version = models.ForeignKey(
        "registry.ModelVersion", on_delete=models.PROTECT, related_name="incident_links"
    )
    # Assay adds the version of an incident that it opens.
    added_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    added_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(
                fields=("incident", "version"), name="version_once_in_an_incident"
            ),
        )

    def __str__(self) -> str:
        return f"version {self.version_id} in incident {self.incident_id}"


class NoteKind(models.TextChoices):
    """Kind of entry in the timeline."""

    NOTE = "note", "wrote"
    STATE = "state", "moved it on"
    SEVERITY = "severity", "rated it"
    VERSION = "version", "added a version"
    LIFTED = "lifted", "lifted the suspension"


class IncidentNote(models.Model):
    """One line of an incident's timeline. Append-only by database triggers. Lines without a person
    are Assay's."""

    incident = models.ForeignKey(Incident, on_delete=models.PROTECT, related_name="notes")
    kind = models.CharField(max_length=10, choices=NoteKind.choices)
    detail = models.CharField(max_length=200, blank=True)
    text = models.TextField(max_length=TEXT_MAX)
    person = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return f"{self.kind} in incident {self.incident_id}"


class IncidentSuspension(models.Model):
    """Suspension of the incident's versions, and of versions built on them, until `lifted_at`.

    `excluded_people` reported the incident or had a part in those versions; they cannot lift it. A
    trigger keeps a reporter among them and lets the list only grow; a check constraint (in a
    migration) prevents lifting by any of them.
    """

    incident = models.ForeignKey(Incident, on_delete=models.PROTECT, related_name="suspensions")
    since = models.DateTimeField(auto_now_add=True)
    excluded_people = ArrayField(models.BigIntegerField())
    lifted_at = models.DateTimeField(null=True, blank=True)
    lifted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    lift_reason = models.CharField(max_length=REASON_MAX, blank=True)

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(
                fields=("incident",),
                condition=Q(lifted_at__isnull=True),
                name="one_suspension_of_an_incident",
            ),
            models.CheckConstraint(
                name="lifted_suspension_says_by_whom",
                condition=Q(lifted_at__isnull=True, lifted_by__isnull=True, lift_reason="")
                | (Q(lifted_at__isnull=False, lifted_by__isnull=False) & ~Q(lift_reason="")),
            ),
        )

    def __str__(self) -> str:
        return f"suspension by incident {self.incident_id}"


class IncidentNotice(Outgoing):
    """A mail about an incident that Assay opened or rated higher, to be sent to one person."""

    incident = models.ForeignKey(Incident, on_delete=models.CASCADE, related_name="notices")
    person = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")

    class Meta:
        ordering = ("id",)
        indexes = (
            models.Index(
                fields=("next_at",),
                condition=Q(next_at__isnull=False),
                name="incident_notices_to_send",
            ),
        )

    def __str__(self) -> str:
        return f"notice {self.pk} of incident {self.incident_id}"
