"""Files uploaded in parts, before an intake or a dataset uses them."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from governance.bounds import FILENAME_MAX, NAME_MAX


class UploadKind(models.TextChoices):
    """Purpose of the file. It decides the largest size, and who may upload it."""

    INTAKE = "intake"
    DATASET = "dataset"


class Upload(models.Model):
    """One file in quarantine under `id`, with `received` of `size` bytes.

    `sha256` is the owner's claim, and after the last byte, when `completed_at` is set, the computed
    value. The row is deleted when the file is used, discarded or expired; the audit log records it.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    department = models.ForeignKey(
        "governance.Department", on_delete=models.PROTECT, related_name="+"
    )
    kind = models.CharField(max_length=10, choices=UploadKind.choices)
    # The database's default is for processes of the previous release during an upgrade.
    target = models.CharField(
        max_length=NAME_MAX,
        blank=True,
        default="",
        db_default="",
        help_text="Name of the model or dataset for which the upload was started.",
    )
    filename = models.CharField(
        max_length=FILENAME_MAX, help_text="May contain slashes; never used as a path."
    )
    size = models.BigIntegerField()
    received = models.BigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(db_index=True)
    completed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("created_at", "id")
        constraints = (
            models.CheckConstraint(
                name="upload_received_no_more_than_its_size",
                condition=Q(received__gte=0, received__lte=F("size"), size__gte=1),
            ),
            models.CheckConstraint(
                name="upload_complete_when_all_is_received",
                condition=Q(completed_at__isnull=True) | Q(received=F("size")),
            ),
        )

    def __str__(self) -> str:
        return f"upload {self.pk}"
