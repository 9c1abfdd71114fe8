"""Deliveries of files, from quarantine through checks to trusted or rejected."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from registry.versions.models import LICENSE_MAX
from registry.versions.weights import QUANTIZATION_MAX

REASON_MAX = 1000


SOURCE_MAX = 300


class IntakeState(models.TextChoices):
    """State of an intake. `awaiting_sign_off`: all checks passed; a second person must sign it."""

    QUARANTINED = "quarantined"
    CHECKING = "checking"
    AWAITING_SIGN_OFF = "awaiting_sign_off", "awaiting sign-off"
    TRUSTED = "trusted"
    REJECTED = "rejected"


class Intake(models.Model):
    """One delivery of files for a new base version, or for a new adapter on `base`.

    With an `expected_digest`, only files of that digest become a version.
    `findings` is a list of {check, passed, detail}; `reason` is the reason of a rejection.
    With `keep_gguf` a GGUF is not converted, and `quantization` is the format of most of its
    weights. `virtual_tokens` is the length of a soft prompt; 0 for everything else.
    """

    model = models.ForeignKey("registry.Model", on_delete=models.PROTECT, related_name="intakes")
    state = models.CharField(
        max_length=20, choices=IntakeState.choices, default=IntakeState.QUARANTINED
    )
    source = models.CharField(max_length=SOURCE_MAX, help_text="Origin of the files.")
    license = models.CharField(max_length=LICENSE_MAX)
    files = models.JSONField(default=list, help_text="Name, size and SHA-256 as delivered.")
    findings = models.JSONField(default=list)
    code = models.JSONField(default=list, help_text="Chat templates and tokenizer patterns.")
    reason = models.CharField(max_length=REASON_MAX, blank=True)
    base = models.ForeignKey(
        "registry.ModelVersion",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="delivered_adapters",
    )
    expected_digest = models.CharField(max_length=64, blank=True, default="", db_default="")
    keep_gguf = models.BooleanField(default=False, db_default=False)
    quantization = models.CharField(
        max_length=QUANTIZATION_MAX, blank=True, default="", db_default=""
    )
    virtual_tokens = models.PositiveSmallIntegerField(default=0, db_default=0)
    manifest = models.JSONField(null=True, blank=True)
    digest = models.CharField(max_length=64, blank=True)
    job_id = models.UUIDField(null=True, blank=True, unique=True)
    version = models.OneToOneField(
        "registry.ModelVersion",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="intake",
    )
    submitted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    signed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    decided_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                name="intake_signed_by_another",
                condition=models.Q(signed_by__isnull=True)
                | ~models.Q(signed_by=models.F("submitted_by")),
            ),
        )

    def __str__(self) -> str:
        return f"intake {self.pk} of {self.model.name}"
