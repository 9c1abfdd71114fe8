"""Files of `/v1/files`: inputs of batches that applications upload, and outputs of batches."""

from __future__ import annotations

from django.db import models

from governance.bounds import FILENAME_MAX
from governance.policy.context import UNDECLARED_CLASSIFICATION

# Maximum files of one department, including outputs of batches.
FILES_MAX = 1_000
# Bounds of `expires_after`, in seconds.
LEAST_S = 3_600
MOST_S = 30 * 86_400


class FilePurpose(models.TextChoices):
    """Purpose of a file: input or output of a batch."""

    BATCH = "batch"
    BATCH_OUTPUT = "batch_output", "batch output"


class StoredFile(models.Model):
    """One file of a department. Its bytes are stored under its ID, and deleted with the row.

    `sender` is the public ID of the key that uploaded the file or created the batch. `size` is in
    bytes. `classification` was declared at the upload; an output has that of its batch.
    """

    id = models.CharField(primary_key=True, max_length=40)
    department = models.ForeignKey(
        "governance.Department", on_delete=models.PROTECT, related_name="+"
    )
    sender = models.CharField(max_length=16)
    filename = models.CharField(max_length=FILENAME_MAX)
    purpose = models.CharField(max_length=12, choices=FilePurpose.choices)
    size = models.PositiveBigIntegerField()
    sha256 = models.CharField(max_length=64)
    classification = models.CharField(
        max_length=20, default=UNDECLARED_CLASSIFICATION, db_default=UNDECLARED_CLASSIFICATION
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()

    class Meta:
        ordering = ("-created_at", "-id")
        indexes = (
            models.Index(fields=("department", "-created_at", "-id"), name="files_of_department"),
            models.Index(fields=("expires_at",), name="files_to_delete"),
        )

    def __str__(self) -> str:
        return f"file {self.pk}"
