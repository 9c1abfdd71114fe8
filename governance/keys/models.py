"""Credentials that are not passwords: departments' API keys and people's access tokens."""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q


class ApiKey(models.Model):
    """A secret that is shown once and kept as an HMAC under a versioned pepper.

    Exactly one owner: a department (an application's key) or a person (an access token for the
    command line and notebooks, which can do no more than that person).
    """

    public_id = models.CharField(max_length=16, unique=True)
    secret_hmac = models.BinaryField(max_length=32)
    pepper_version = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=120)
    department = models.ForeignKey(
        "governance.Department",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="api_keys",
    )
    person = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="access_tokens",
    )
    scopes = ArrayField(models.CharField(max_length=60), default=list)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                name="key_has_exactly_one_owner",
                condition=Q(department__isnull=False, person__isnull=True)
                | Q(department__isnull=True, person__isnull=False),
            ),
            models.CheckConstraint(
                name="key_expires_after_it_is_made",
                condition=Q(expires_at__gt=models.F("created_at")),
            ),
        )

    def __str__(self) -> str:
        return f"{self.name} ({self.public_id})"
