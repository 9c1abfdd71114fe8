"""Limits on what a department or one of its keys may use."""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class QuotaKind(models.TextChoices):
    """What is counted, in which window."""

    REQUESTS_PER_MINUTE = "requests_per_minute", "requests per minute"
    TOKENS_PER_MINUTE = "tokens_per_minute", "tokens per minute"
    CONCURRENT_REQUESTS = "concurrent_requests", "concurrent requests"
    TOKENS_PER_DAY = "tokens_per_day", "tokens per day"


class QuotaLimit(models.Model):
    """One limit on one department or one API key. All that apply must have room."""

    department = models.ForeignKey(
        "governance.Department",
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="quota_limits",
    )
    api_key = models.ForeignKey(
        "governance.ApiKey",
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="quota_limits",
    )
    kind = models.CharField(max_length=30, choices=QuotaKind.choices)
    limit = models.PositiveBigIntegerField()

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(
                fields=("department", "api_key", "kind"),
                nulls_distinct=False,
                name="one_limit_of_a_kind",
            ),
            models.CheckConstraint(
                name="limit_names_one_subject",
                condition=Q(department__isnull=False, api_key__isnull=True)
                | Q(department__isnull=True, api_key__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} ≤ {self.limit}"
