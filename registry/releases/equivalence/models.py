"""Environments that compute answers, and comparisons of releases in them."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

from registry.releases.engines import ENGINE_MAX, ENGINES

WORKER_MAX = 120


class SoftwareEnvironment(models.Model):
    """Versions of Assay, its libraries and one engine on workers. `fingerprint` is the
    SHA-256 of `versions` in canonical JSON; `seen_at` is when a worker last reported it.
    """

    fingerprint = models.CharField(max_length=64, primary_key=True)
    engine = models.CharField(max_length=ENGINE_MAX, choices=ENGINES)
    versions = models.JSONField(default=dict)
    first_seen_at = models.DateTimeField(default=timezone.now)
    seen_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("-seen_at",)

    def __str__(self) -> str:
        return self.fingerprint[:12]


class EquivalenceOutcome(models.TextChoices):
    """Result of a comparison: the dossier's answers, other answers, or nothing to compare with.
    `FIRST` is the last case in the first environment that serves the release."""

    PASSED = "passed", "Same answers"
    DIFFERS = "differs", "Other answers"
    FIRST = "first", "First environment"
    UNVERIFIED = "unverified", "Nothing to compare with"


# Outcomes with which a release may serve in an environment.
EQUIVALENT = (EquivalenceOutcome.PASSED, EquivalenceOutcome.FIRST)


class EquivalenceCheck(models.Model):
    """One release compared in one environment. Rows never change; `differs` outweighs `passed`.
    `differing` lists the rows that differ, and how, without content.
    """

    # A trigger checks that it exists. With a foreign key, a worker could lock the row of a release
    # and thereby block its recall.
    release = models.ForeignKey(
        "registry.Release",
        on_delete=models.PROTECT,
        related_name="equivalence_checks",
        db_constraint=False,
    )
    environment = models.ForeignKey(
        SoftwareEnvironment, on_delete=models.PROTECT, related_name="checks"
    )
    outcome = models.CharField(max_length=10, choices=EquivalenceOutcome.choices)
    rows = models.PositiveSmallIntegerField(default=0)
    differing = models.JSONField(default=list)
    worker = models.CharField(max_length=WORKER_MAX)
    checked_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(
                fields=("release", "environment", "outcome"), name="compared_once"
            ),
            models.UniqueConstraint(
                fields=("release",), condition=Q(outcome="first"), name="one_first_environment"
            ),
            models.CheckConstraint(
                name="a_comparison_has_rows",
                condition=Q(outcome__in=("passed", "differs"), rows__gt=0)
                | Q(outcome__in=("first", "unverified"), rows=0),
            ),
        )

    def __str__(self) -> str:
        return f"{self.release_id} in {self.environment_id[:12]}: {self.outcome}"
