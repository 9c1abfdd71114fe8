"""Registered models and their immutable versions."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from governance.bounds import DESCRIPTION_MAX, NAME_MAX, TASK_MAX

LICENSE_MAX = 60


REASON_MAX = 1000


class Model(models.Model):
    """A named line of versions, owned by a department, for one task of the catalog."""

    name = models.SlugField(max_length=NAME_MAX, unique=True)
    department = models.ForeignKey("governance.Department", on_delete=models.PROTECT)
    task = models.CharField(max_length=TASK_MAX)
    description = models.CharField(max_length=DESCRIPTION_MAX, blank=True)
    shared = models.BooleanField(
        default=False, help_text="Other departments may see it and use it as a base."
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class VersionKind(models.TextChoices):
    """Relation of a version to its base. A `hosted` version is run by a provider, has no base, and
    its only file describes it (`registry.catalog.hosted`)."""

    BASE = "base"
    FULL = "full"
    ADAPTER = "adapter"
    PROMPT = "prompt"
    HOSTED = "hosted"


class VersionState(models.TextChoices):
    """A `trusted` version may be released; a `recalled` one, or one built on it, never serves."""

    TRUSTED = "trusted"
    RECALLED = "recalled"


class ModelVersion(models.Model):
    """One immutable version: exactly the files of `manifest`, whose digest is `digest`.

    The files are in the artifact store under the digest. `job_id` is unique, so that a job reported
    twice registers one version.
    """

    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    kind = models.CharField(max_length=10, choices=VersionKind.choices)
    state = models.CharField(
        max_length=10, choices=VersionState.choices, default=VersionState.TRUSTED
    )
    base = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="adaptations"
    )
    dataset_version = models.ForeignKey(
        "registry.DatasetVersion",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="trained_versions",
    )
    digest = models.CharField(max_length=64, db_index=True)
    manifest = models.JSONField()
    size_bytes = models.BigIntegerField()
    parameters = models.JSONField(default=dict, help_text="Hyper-parameters and settings.")
    metrics = models.JSONField(default=dict, help_text="Measured while training.")
    license = models.CharField(max_length=LICENSE_MAX, blank=True)
    code = models.JSONField(default=list, help_text="Chat templates and tokenizer patterns.")
    card = models.TextField(blank=True, help_text="The model card, in Markdown.")
    mlflow_run_id = models.CharField(max_length=64, blank=True)
    mlflow_version = models.CharField(max_length=20, blank=True)
    job_id = models.UUIDField(null=True, blank=True, unique=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    recalled_at = models.DateTimeField(null=True, blank=True)
    recalled_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    recalled_with = models.ForeignKey(
        "self",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        help_text="Version whose recall also recalled this one, or this version itself.",
    )
    recall_reason = models.CharField(max_length=REASON_MAX, blank=True)

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(fields=("model", "number"), name="version_number_once"),
            models.CheckConstraint(
                name="adaptation_names_its_base",
                condition=Q(kind__in=("base", "hosted"), base__isnull=True)
                | (~Q(kind__in=("base", "hosted")) & Q(base__isnull=False)),
            ),
        )

    def __str__(self) -> str:
        return f"{self.model.name} v{self.number}"

    @property
    def rows_cut(self) -> int:
        """Number of training rows longer than training reads; 0 if unknown."""
        count = self.parameters.get("rows_cut", 0)
        return count if isinstance(count, int) else 0
