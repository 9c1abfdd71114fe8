"""Deliveries of files, from quarantine through checks to trusted or rejected."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone

from registry.catalog.hosted import HOSTED_FILE
from registry.versions.models import LICENSE_MAX
from registry.versions.weights import QUANTIZATION_MAX

REASON_MAX = 1000


SOURCE_MAX = 300


class IntakeState(models.TextChoices):
    """State of an intake. `probing`: the checks passed; an egress worker calls the provider of a
    hosted model. `awaiting_sign_off`: all checks passed; a second person must sign it."""

    QUARANTINED = "quarantined"
    CHECKING = "checking"
    PROBING = "probing", "calling the provider"
    AWAITING_SIGN_OFF = "awaiting_sign_off", "awaiting sign-off"
    TRUSTED = "trusted"
    REJECTED = "rejected"


class Intake(models.Model):
    """One delivery of files for a new base version, for a new adapter on `base`, or of the
    description of a hosted model.

    With an `expected_digest`, only files of that digest become a version.
    `findings` is a list of {check, passed, detail}; `reason` is the reason of a rejection.
    With `keep_gguf` a GGUF is not converted, and `quantization` is the format of most of its
    weights. `virtual_tokens` is the length of a soft prompt; 0 for everything else. `hosted` is the
    description of a hosted model once it is checked; empty for everything else.
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
    hosted = models.JSONField(default=dict, db_default={}, blank=True)
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

    @property
    def describes_hosted(self) -> bool:
        """Return whether the delivery is the description of a hosted model."""
        return [file["name"] for file in self.files] == [HOSTED_FILE]


class IntakeProbe(models.Model):
    """The call of the provider of a hosted model, before its intake is signed off.

    An egress worker takes it once it is due, and must report within the time that moves `due_at`.
    `result` has the fields of `registry.catalog.hosted.ProbeResult`, null until it is reported.
    """

    intake = models.OneToOneField(
        Intake, on_delete=models.CASCADE, primary_key=True, related_name="probe"
    )
    due_at = models.DateTimeField(default=timezone.now)
    tries = models.PositiveSmallIntegerField(default=0)
    worker = models.CharField(max_length=120, blank=True, default="")
    result = models.JSONField(null=True, blank=True)

    class Meta:
        indexes = (
            models.Index("due_at", condition=models.Q(result__isnull=True), name="probe_due"),
            models.Index("intake", condition=models.Q(result__isnull=False), name="probe_reported"),
        )

    def __str__(self) -> str:
        return f"probe of intake {self.pk}"
