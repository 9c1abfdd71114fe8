"""Policies: numbered sets of rules, drafted, tested, proposed and decided by a second person."""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

DECISION_NOTE_MAX = 2000
NOTE_MAX = 500


class PolicyState(models.TextChoices):
    """State of an access policy or of a review policy.

    Draft: its authors may change it. Proposed: frozen, waiting for the decision of a person who is
    not an author. Active: in force. Superseded: formerly in force. Rejected and withdrawn: never in
    force; a new draft can reuse the content.
    """

    DRAFT = "draft"
    PROPOSED = "proposed"
    ACTIVE = "active"
    SUPERSEDED = "superseded"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"


# Decided by a person who is not an author; the installer decided the first policy (number 1).
DECIDED_STATES = (PolicyState.ACTIVE, PolicyState.SUPERSEDED, PolicyState.REJECTED)


class PolicyBase(models.Model):
    """Columns that access policies and review policies share.

    `based_on` is the number of the policy that was active when this one was drafted. `authors` are
    the IDs of everyone who edited it: none of them may decide on it.
    """

    state = models.CharField(max_length=12, choices=PolicyState.choices, default=PolicyState.DRAFT)
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
    decision_note = models.CharField(max_length=DECISION_NOTE_MAX, blank=True)

    class Meta:
        abstract = True


class PolicyVersion(PolicyBase):
    """One numbered set of rules, with the cases it must satisfy; at most one is active.

    `rules` and `tests` are plain data as `governance.policy.document` checks them. `digest` is the
    SHA-256 of the rules alone, in canonical JSON. In addition to the constraints below, triggers
    freeze the content of all but drafts, and refuse deletion and transitions outside
    `ALLOWED_TRANSITIONS`.
    """

    number = models.PositiveIntegerField(unique=True)
    state = models.CharField(
        max_length=12, choices=PolicyState.choices, default=PolicyState.DRAFT, db_index=True
    )
    rules = models.JSONField()
    tests = models.JSONField(default=list, blank=True)
    note = models.CharField(max_length=NOTE_MAX, blank=True)

    class Meta:
        ordering = ("-number",)
        constraints = (
            models.UniqueConstraint(
                fields=("state",),
                condition=Q(state=PolicyState.ACTIVE),
                name="one_active_policy",
            ),
            models.CheckConstraint(
                name="policy_is_decided_by_a_second_person",
                condition=Q(number=1)
                | ~Q(state__in=DECIDED_STATES)
                | (
                    Q(proposed_by__isnull=False, decided_by__isnull=False)
                    & ~Q(decided_by=models.F("proposed_by"))
                ),
            ),
            models.CheckConstraint(
                name="proposed_policy_names_its_proposer",
                condition=~Q(state=PolicyState.PROPOSED) | Q(proposed_by__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return f"policy {self.number}"
