"""A request for a release that is not submitted yet."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone

# A draft is deleted when it was not changed for this number of days.
RETENTION_DAYS = 90
DRAFTS_MAX = 200
CONTENT_BYTES_MAX = 65_536


class ReleaseDraft(models.Model):
    """Answers to the release form so far. It is not reviewed, and permits nothing.

    `content` has the shape of `DraftContent`. `revision` counts its changes, so that two editors
    do not overwrite each other. `job_id` is the last job of the chain that made it.
    """

    version = models.ForeignKey(
        "registry.ModelVersion", on_delete=models.PROTECT, related_name="release_drafts"
    )
    department = models.ForeignKey(
        "governance.Department", on_delete=models.PROTECT, related_name="+"
    )
    content = models.JSONField(default=dict)
    revision = models.PositiveIntegerField(default=1)
    job_id = models.UUIDField(null=True, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("-updated_at", "-id")
        indexes = (
            models.Index(fields=("department", "-updated_at"), name="drafts_of_department"),
            models.Index(fields=("updated_at",), name="drafts_by_age"),
        )

    def __str__(self) -> str:
        return f"release draft {self.pk}"
