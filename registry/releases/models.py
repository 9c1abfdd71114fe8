"""Requests to run one version in one environment for certain departments and purposes."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from governance.bounds import NAME_MAX, TIER_MAX
from registry.catalog.engines import EngineName
from registry.releases.engines import ENGINE_MAX, ENGINES, PRECISION_MAX, Precision

DEPARTMENTS_MAX = 100
PURPOSE_MAX = 1000
WITHDRAW_REASON_MAX = 1000


class ReleaseState(models.TextChoices):
    """State of a release. It may serve while `approved`, until its `serves_until`, and under review
    for the hours of emergency access. An incident makes an approved one `suspended`. A release
    under review becomes `voided` when something changes that its dossier covers."""

    IN_REVIEW = "in_review", "in review"
    CHANGES_REQUESTED = "changes_requested", "changes requested"
    APPROVED = "approved"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    RECALLED = "recalled"
    SUSPENDED = "suspended"
    VOIDED = "voided"


class Environment(models.TextChoices):
    """Environment to run in."""

    STAGING = "staging"
    PRODUCTION = "production"


class Visibility(models.TextChoices):
    """Departments that may know of the deployment; `departments` decides who may use it."""

    DEPARTMENT = "department"
    ORGANIZATION = "organization"


class Release(models.Model):
    """One version, one environment, one deployment name, and the dossier under review.

    `dossier_digest` is the SHA-256 of `dossier` in canonical JSON; approvals name it.

    The approval ends at `expires_at`; what serves by then goes on for `grace_days` more.
    `conditions` are the merged conditions of its approvers (`registry.releases.conditions`), frozen
    with the approval. `warns_at` is the time of the next warning of its end. `renews` is the
    release that it renews.

    `engine` and `precision` repeat the dossier's section `serving`; the rule compares both.

    `frozen_at` is the time of the dossier, `voided_because` the change since then. `deployed_at` is
    the last time that it became live.
    """

    version = models.ForeignKey(
        "registry.ModelVersion", on_delete=models.PROTECT, related_name="releases"
    )
    department = models.ForeignKey(
        "governance.Department", on_delete=models.PROTECT, related_name="releases"
    )
    environment = models.CharField(max_length=12, choices=Environment.choices)
    deployment_name = models.SlugField(max_length=NAME_MAX)
    departments = models.ManyToManyField(
        "governance.Department",
        related_name="usable_releases",
        help_text="Departments that may use it.",
    )
    visibility = models.CharField(
        max_length=12, choices=Visibility.choices, default=Visibility.DEPARTMENT
    )
    purpose = models.CharField(max_length=PURPOSE_MAX)
    risk_answers = models.JSONField(default=dict)
    dossier_fields = models.JSONField(
        default=dict, help_text="Risks, oversight, operation and conformity, as entered."
    )
    tier = models.CharField(max_length=TIER_MAX, default="limited")
    engine = models.CharField(
        max_length=ENGINE_MAX,
        choices=ENGINES,
        default=EngineName.OWN,
        db_default=EngineName.OWN,
    )
    precision = models.CharField(
        max_length=PRECISION_MAX,
        choices=Precision.choices,
        default=Precision.STORED,
        db_default=Precision.STORED,
    )
    state = models.CharField(
        max_length=20, choices=ReleaseState.choices, default=ReleaseState.IN_REVIEW, db_index=True
    )
    dossier = models.JSONField()
    dossier_digest = models.CharField(max_length=64)
    submitted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    frozen_at = models.DateTimeField(default=timezone.now)
    voided_because = models.CharField(max_length=500, blank=True, default="")
    deployed_at = models.DateTimeField(null=True, blank=True)
    approved_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    grace_days = models.PositiveSmallIntegerField(default=0)
    conditions = models.JSONField(default=dict, blank=True)
    warns_at = models.DateTimeField(null=True, blank=True)
    renews = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="renewals"
    )

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                name="approved_release_expires",
                condition=~Q(state=ReleaseState.APPROVED)
                | Q(approved_at__isnull=False, expires_at__isnull=False),
            ),
            models.CheckConstraint(
                name="voided_release_says_what_changed",
                condition=~Q(state=ReleaseState.VOIDED) | ~Q(voided_because=""),
            ),
            models.UniqueConstraint(
                fields=("version", "environment", "deployment_name"),
                condition=Q(state__in=("in_review", "changes_requested")),
                name="one_open_release_per_version",
            ),
        )

    def __str__(self) -> str:
        return f"release {self.pk}"

    @property
    def gated(self) -> bool:
        """Return true if an evaluation in the dossier has the result of a gate."""
        return any(each.get("gates") for each in self.dossier.get("evaluations", ()))

    @property
    def serves_until(self) -> datetime | None:
        """Return the end of serving: after the grace period, or earlier by its conditions."""
        if self.expires_at is None:
            return None
        end = self.expires_at + timedelta(days=self.grace_days)
        if "until" not in self.conditions:
            return end
        try:
            return min(end, datetime.fromisoformat(self.conditions["until"]))
        except (TypeError, ValueError):
            # Such conditions were never approved: the release does not serve.
            return self.approved_at

    @property
    def in_grace(self) -> bool:
        """Return true if the approval has ended and the grace period has not."""
        end, now = self.serves_until, timezone.now()
        return (
            self.state == ReleaseState.APPROVED
            and end is not None
            and self.expires_at is not None
            and self.expires_at <= now < end
        )
