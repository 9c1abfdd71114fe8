"""Review policies: one row is one version of one of them, as the YAML that a person decided on."""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

# Installed with the platform, as version 1 of each, by whoever installs it.
SHIPPED = ("minimal", "limited", "general-purpose", "high")


class ReviewPolicyState(models.TextChoices):
    """State of a version.

    Draft: its authors may change it. Proposed: frozen, waiting for a person who is not an author.
    Active: reviews that open now are held under it. Superseded: they were once. Rejected and
    withdrawn: they never were and never will be.
    """

    DRAFT = "draft"
    PROPOSED = "proposed"
    ACTIVE = "active"
    SUPERSEDED = "superseded"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"


DECIDED_STATES = (
    ReviewPolicyState.ACTIVE,
    ReviewPolicyState.SUPERSEDED,
    ReviewPolicyState.REJECTED,
)


class ReviewPolicy(models.Model):
    """One version of the review policy called `name`; of each name at most one is active.

    `digest` is the SHA-256 of `text`. `based_on` is the version that was active when it was
    drafted. `authors` are the ids of everyone who edited it: none of them decides. In addition to
    the constraints below, triggers freeze the content of all but drafts, and refuse deletion and
    transitions outside `ALLOWED_TRANSITIONS`.
    """

    name = models.SlugField(max_length=20)
    version = models.PositiveIntegerField()
    state = models.CharField(
        max_length=12, choices=ReviewPolicyState.choices, default=ReviewPolicyState.DRAFT
    )
    text = models.TextField()
    digest = models.CharField(max_length=64)
    based_on = models.PositiveIntegerField(null=True, blank=True)
    authors = ArrayField(models.BigIntegerField(), default=list, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    proposed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    proposed_at = models.DateTimeField(null=True, blank=True)
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    decided_at = models.DateTimeField(null=True, blank=True)
    decision_note = models.CharField(max_length=2000, blank=True)

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(fields=("name", "version"), name="review_policy_version_once"),
            models.UniqueConstraint(
                fields=("name",),
                condition=Q(state=ReviewPolicyState.ACTIVE),
                name="one_active_review_policy_per_name",
            ),
            models.CheckConstraint(
                name="review_policy_is_decided_by_a_second_person",
                condition=Q(version=1, name__in=SHIPPED, created_by__isnull=True)
                | ~Q(state__in=DECIDED_STATES)
                | (
                    Q(proposed_by__isnull=False, decided_by__isnull=False)
                    & ~Q(decided_by=models.F("proposed_by"))
                ),
            ),
            models.CheckConstraint(
                name="proposed_review_policy_names_its_proposer",
                condition=~Q(state=ReviewPolicyState.PROPOSED) | Q(proposed_by__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"
