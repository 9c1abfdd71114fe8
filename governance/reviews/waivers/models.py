"""Waivers: a checklist item of a review is excused, with a reason and an end."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q

REASON_MAX = 1000


class WaiverState(models.TextChoices):
    """State of a waiver. Only `granted` excuses the item, and only until `expires_at`."""

    REQUESTED = "requested"
    GRANTED = "granted"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    REVOKED = "revoked"
    EXPIRED = "expired"


class Waiver(models.Model):
    """A waiver that one person requested and another grants, for the digest under review.

    `excused` repeats the item's result at the time of the request; the waiver is for that result.
    A trigger (migration) freezes the requested terms, and refuses a granter who had a part in the
    subject.
    """

    review = models.ForeignKey(
        "governance.Review", on_delete=models.PROTECT, related_name="waivers"
    )
    item = models.ForeignKey(
        "governance.ChecklistItem", on_delete=models.PROTECT, related_name="waivers"
    )
    digest = models.CharField(max_length=64)
    round = models.PositiveIntegerField()
    excused = models.CharField(max_length=500, blank=True)
    reason = models.TextField(max_length=REASON_MAX)
    expires_at = models.DateTimeField()
    asked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    asked_at = models.DateTimeField(auto_now_add=True)
    state = models.CharField(
        max_length=10, choices=WaiverState.choices, default=WaiverState.REQUESTED
    )
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    decided_at = models.DateTimeField(null=True, blank=True)
    decision_reason = models.TextField(max_length=REASON_MAX, blank=True)
    ended_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    ended_at = models.DateTimeField(null=True, blank=True)
    end_reason = models.TextField(max_length=REASON_MAX, blank=True)

    class Meta:
        ordering = ("id",)
        indexes = (
            models.Index(
                fields=("expires_at",), condition=Q(state="granted"), name="granted_waivers_by_end"
            ),
        )
        constraints = (
            models.UniqueConstraint(
                fields=("item",),
                condition=Q(state__in=("requested", "granted")),
                name="one_waiver_at_a_time_per_item",
            ),
            models.CheckConstraint(
                name="asker_never_decides_on_a_waiver",
                condition=Q(decided_by__isnull=True) | ~Q(decided_by=F("asked_by")),
            ),
            models.CheckConstraint(
                name="decided_waiver_says_by_whom",
                condition=Q(state__in=("requested", "withdrawn"))
                | Q(decided_by__isnull=False, decided_at__isnull=False),
            ),
            models.CheckConstraint(
                name="waiver_ends_after_it_was_asked_for",
                condition=Q(expires_at__gt=F("asked_at")),
            ),
        )

    def __str__(self) -> str:
        return f"waiver {self.pk}"
