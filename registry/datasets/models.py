"""Datasets, with an owner, a classification and a license, and their versions with a digest."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from governance.bounds import DESCRIPTION_MAX, NAME_MAX, TASK_MAX

LICENSE_MAX = 120


class Classification(models.TextChoices):
    """Sensitivity of the data, from least to most."""

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    RESTRICTED = "restricted"


class Dataset(models.Model):
    """A named series of dataset versions, owned by a department."""

    name = models.SlugField(max_length=NAME_MAX, unique=True)
    department = models.ForeignKey("governance.Department", on_delete=models.PROTECT)
    task = models.CharField(max_length=TASK_MAX)
    # Name of one of the task's row kinds; empty for the task's own kind.
    row_kind = models.CharField(max_length=TASK_MAX, blank=True, default="")
    classification = models.CharField(max_length=15, choices=Classification.choices)
    license = models.CharField(max_length=LICENSE_MAX)
    description = models.CharField(max_length=DESCRIPTION_MAX, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class DatasetVersion(models.Model):
    """One immutable version: canonical JSON lines in the artifact store, one row per record.

    `profile` has the results of the checks: label counts, duplicates, lengths in characters. A
    version built from feedback contains the rows of `feedback` and, if set, of `base`.
    """

    dataset = models.ForeignKey(Dataset, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    digest = models.CharField(max_length=64, db_index=True)
    rows = models.PositiveIntegerField()
    size_bytes = models.BigIntegerField()
    schema = models.JSONField()
    profile = models.JSONField(default=dict)
    # SHA-256 of the media list; empty without media.
    media_list_sha256 = models.CharField(max_length=64, blank=True, default="", db_default="")
    base = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="extensions"
    )
    feedback = models.ManyToManyField("registry.Feedback", related_name="dataset_versions")
    feedback_count = models.PositiveIntegerField(default=0, db_default=0)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(
                fields=("dataset", "number"), name="dataset_version_number_once"
            ),
        )

    def __str__(self) -> str:
        return f"{self.dataset.name} v{self.number}"
