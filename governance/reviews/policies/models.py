"""Review policies: each row is one version of one policy, with its text in YAML."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from governance.bounds import TIER_MAX
from governance.policy.models import DECIDED_STATES, PolicyBase, PolicyState

# Installed with the platform, as version 1 of each.
SHIPPED = ("minimal", "limited", "general-purpose", "high")


class ReviewPolicy(PolicyBase):
    """One version of the review policy `name`; at most one version of each policy is active.

    `digest` is the SHA-256 of `text`. In addition to the constraints below, triggers
    freeze the content of all but drafts, and refuse deletion and transitions outside
    `ALLOWED_TRANSITIONS`.
    """

    name = models.SlugField(max_length=TIER_MAX)
    version = models.PositiveIntegerField()
    text = models.TextField()

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(fields=("name", "version"), name="review_policy_version_once"),
            models.UniqueConstraint(
                fields=("name",),
                condition=Q(state=PolicyState.ACTIVE),
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
                condition=~Q(state=PolicyState.PROPOSED) | Q(proposed_by__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"
