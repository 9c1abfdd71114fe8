"""Emergency access: an emergency approval by two persons, of one dossier, for some hours."""

from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q

LESSONS_MAX = 4000
REASON_MAX = 1000
HOURS_MAX = 24


class EmergencyAccessState(models.TextChoices):
    """State of emergency access. A release may serve only in `active`, and only until `ends_at`;
    access that was active must be reviewed afterward."""

    REQUESTED = "requested"
    ACTIVE = "active"
    ENDED = "ended", "ended, not reviewed yet"
    REVIEWED = "reviewed"
    REFUSED = "refused"
    LAPSED = "lapsed"


class AfterVerdict(models.TextChoices):
    """Verdict of the review afterward."""

    JUSTIFIED = "justified"
    NOT_JUSTIFIED = "not_justified", "not justified"


class EmergencyAccess(models.Model):
    """One use, or request, of the emergency approval of a release that is under review.

    It applies only to the dossier with `dossier_digest`. `asked_by` and `confirmed_by` are two
    persons; `excluded_people`, who had a part in the release, cannot confirm. `due_at` is the
    deadline for the review by a third person.
    """

    release = models.ForeignKey(
        "registry.Release", on_delete=models.PROTECT, related_name="emergency_accesses"
    )
    department = models.ForeignKey(
        "governance.Department", on_delete=models.PROTECT, related_name="+"
    )
    dossier_digest = models.CharField(max_length=64)
    state = models.CharField(
        max_length=10,
        choices=EmergencyAccessState.choices,
        default=EmergencyAccessState.REQUESTED,
        db_index=True,
    )
    reason = models.CharField(max_length=REASON_MAX)
    hours = models.PositiveSmallIntegerField()
    excluded_people = ArrayField(models.BigIntegerField())
    asked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    asked_at = models.DateTimeField()
    confirmed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    confirmed_at = models.DateTimeField(null=True, blank=True)
    proof = models.CharField(
        max_length=20, blank=True, help_text="Second factor of the person who confirmed it."
    )
    ends_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    ended_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    ended_reason = models.CharField(max_length=REASON_MAX, blank=True)
    due_at = models.DateTimeField(null=True, blank=True)
    reviewed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    reviewed_at = models.DateTimeField(null=True, blank=True)
    verdict = models.CharField(max_length=14, choices=AfterVerdict.choices, blank=True)
    lessons = models.TextField(max_length=LESSONS_MAX, blank=True)

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(
                fields=("release",),
                condition=Q(state__in=("requested", "active")),
                name="one_open_emergency_access_per_release",
            ),
            models.CheckConstraint(
                name="emergency_access_takes_two_persons",
                condition=Q(confirmed_by__isnull=True) | ~Q(confirmed_by=F("asked_by")),
            ),
            models.CheckConstraint(
                name="emergency_access_in_force_is_confirmed",
                condition=~Q(state__in=("active", "ended", "reviewed"))
                | Q(
                    confirmed_by__isnull=False,
                    confirmed_at__isnull=False,
                    ends_at__isnull=False,
                    due_at__isnull=False,
                ),
            ),
            models.CheckConstraint(
                name="emergency_access_lasts_some_hours",
                condition=Q(hours__gte=1, hours__lte=24),
            ),
            models.CheckConstraint(
                name="ended_emergency_access_says_when",
                condition=~Q(state__in=("ended", "reviewed")) | Q(ended_at__isnull=False),
            ),
            models.CheckConstraint(
                name="after_review_by_a_third_person",
                condition=Q(reviewed_by__isnull=True)
                | (~Q(reviewed_by=F("asked_by")) & ~Q(reviewed_by=F("confirmed_by"))),
            ),
            models.CheckConstraint(
                name="reviewed_emergency_access_has_a_verdict",
                condition=Q(
                    state="reviewed",
                    reviewed_by__isnull=False,
                    reviewed_at__isnull=False,
                    verdict__in=("justified", "not_justified"),
                )
                & ~Q(lessons="")
                | ~Q(state="reviewed") & Q(reviewed_by__isnull=True, verdict="", lessons=""),
            ),
        )

    def __str__(self) -> str:
        return f"emergency access {self.pk} of release {self.release_id}"

    @property
    def over_at(self) -> datetime | None:
        """Actual or scheduled end; None before it is confirmed."""
        return self.ended_at or self.ends_at
