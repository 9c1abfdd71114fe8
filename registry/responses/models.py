"""Stored responses of the inference API, and their retention by department."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

RETENTION_MAX_DAYS = 365


class ResponseState(models.TextChoices):
    """State of a response: `in_progress`, then `finished` with the sent response, or `failed`."""

    IN_PROGRESS = "in_progress", "in progress"
    FINISHED = "finished"
    FAILED = "failed"


class ResponseRetention(models.Model):
    """Days for which a department keeps responses; without a row, or with 0, it stores none."""

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
    """One stored response (`resp_…`) or chat (`chatcmpl-…`): the items that its request added, and
    the answer.

    `classification` is the highest declared for the conversation. `ancestors` are the IDs of the
    earlier responses of the conversation, the oldest first. `sender` is the public ID of the key;
    `person` is the sender of a request in the playground. `size` is the content's length in bytes
    of JSON.
    """

    id = models.CharField(primary_key=True, max_length=64)
    department = models.ForeignKey(
        "governance.Department", on_delete=models.PROTECT, related_name="+"
    )
    deployment = models.CharField(max_length=80)
    # ID of the release that answered; its conversation goes on with it.
    release = models.PositiveIntegerField(null=True, blank=True)
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
