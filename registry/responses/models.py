"""Stored answers of the inference API, and how long a department keeps them."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

RETENTION_MAX_DAYS = 365


class ResponseState(models.TextChoices):
    """`in_progress` ends as `finished`, with the response that the caller got, or as `failed`."""

    IN_PROGRESS = "in_progress", "in progress"
    FINISHED = "finished"
    FAILED = "failed"


class ResponseRetention(models.Model):
    """Days for which a department keeps responses; without a row, or at 0, it stores none."""

    department = models.OneToOneField(
        "governance.Department", on_delete=models.PROTECT, related_name="+"
    )
    days = models.PositiveIntegerField()
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = (
            models.CheckConstraint(
                name="responses_are_kept_a_year_at_most",
                condition=Q(days__lte=RETENTION_MAX_DAYS),
            ),
        )

    def __str__(self) -> str:
        return f"retention of {self.department_id}"


class StoredResponse(models.Model):
    """One stored response, or chat: the items that its request added, and what was answered. Its ID
    begins with `resp_`, or with `chatcmpl-`.

    `classification` is the highest that was declared for the conversation. `ancestors` are the IDs
    of the responses that it continues, the oldest first. `sender` is the public ID of the key;
    `person` asked in the playground. `size` is the length of the content in bytes of JSON.
    """

    id = models.CharField(primary_key=True, max_length=64)
    department = models.ForeignKey(
        "governance.Department", on_delete=models.PROTECT, related_name="+"
    )
    deployment = models.CharField(max_length=80)
    sender = models.CharField(max_length=16)
    person = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    classification = models.CharField(max_length=20, blank=True, default="")
    ancestors = models.JSONField(default=list, blank=True)
    items = models.JSONField()
    response = models.JSONField()
    size = models.PositiveIntegerField()
    state = models.CharField(
        max_length=11, choices=ResponseState.choices, default=ResponseState.IN_PROGRESS
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()

    class Meta:
        ordering = ("-created_at", "id")
        indexes = (
            models.Index(fields=("department", "size"), name="responses_of_department"),
            models.Index(fields=("expires_at",), name="responses_to_delete"),
        )

    def __str__(self) -> str:
        return f"response {self.pk}"
