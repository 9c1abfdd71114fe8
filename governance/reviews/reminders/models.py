"""Reminders about reviews, and the notices that deliver them."""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from governance.outgoing import Outgoing


class ReminderKind(models.TextChoices):
    """Occasion of a reminder. `escalated` goes to administrators; `emergency` reports that a
    release serves by emergency access, before its review is decided; `assigned` and `mentioned`
    tell a person that a review was assigned to them, or that a comment mentions them."""

    EARLY = "early"
    LATE = "late"
    OVERDUE = "overdue"
    ESCALATED = "escalated"
    EMERGENCY = "emergency"
    ASSIGNED = "assigned"
    MENTIONED = "mentioned"


class ReviewReminder(models.Model):
    """A reminder about one review, with its recipients."""

    review = models.ForeignKey(
        "governance.Review", on_delete=models.PROTECT, related_name="reminders"
    )
    kind = models.CharField(max_length=10, choices=ReminderKind.choices)
    people = ArrayField(models.BigIntegerField(), default=list)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("id",)
        constraints = (
            # A review can have many reminders of these kinds, one for each occasion.
            models.UniqueConstraint(
                fields=("review", "kind"),
                condition=~Q(kind__in=("emergency", "assigned", "mentioned")),
                name="each_reminder_once",
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} of review {self.review_id}"


class Channel(models.TextChoices):
    """Channel of a notice."""

    MAIL = "mail"
    WEBHOOK = "webhook"


class ReviewNotice(Outgoing):
    """A message about a review, on one channel."""

    reminder = models.ForeignKey(ReviewReminder, on_delete=models.CASCADE, related_name="notices")
    channel = models.CharField(max_length=8, choices=Channel.choices)
    person = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )

    class Meta:
        ordering = ("id",)
        indexes = (
            models.Index(
                fields=("next_at",), condition=Q(next_at__isnull=False), name="notices_to_send"
            ),
        )
        constraints = (
            models.UniqueConstraint(
                fields=("reminder", "channel", "person"),
                nulls_distinct=False,
                name="each_notice_once",
            ),
            models.CheckConstraint(
                name="mail_goes_to_somebody",
                condition=Q(channel="webhook", person__isnull=True)
                | Q(channel="mail", person__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return f"{self.channel} of {self.reminder_id}"
