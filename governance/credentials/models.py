"""Credentials of departments, and their latest uses."""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from governance.bounds import NAME_MAX

CREDENTIAL_MAX = 60
HOST_MAX = 253
HOSTS_MAX = 20


class CredentialKind(models.TextChoices):
    """Method by which a secret authenticates requests (see `governance.credentials.secrets`)."""

    HEADER = "header", "static header"
    OAUTH2 = "oauth2", "OAuth 2.0 client credentials"
    GOOGLE = "google", "Google service account"
    AWS = "aws", "AWS signature (SigV4)"


class CredentialState(models.TextChoices):
    """A `revoked` credential holds no secret; rotation gives it a new one."""

    ACTIVE = "active"
    REVOKED = "revoked"


class Credential(models.Model):
    """A named secret of a department. Only egress workers can open it, and send it only to `hosts`.

    `sealed` is the encrypted secret, bound to department, name, kind, hosts and `version`. Each new
    secret increases `version`. `sealed_to` is the fingerprint of the public key.
    """

    department = models.ForeignKey(
        "governance.Department", on_delete=models.PROTECT, related_name="credentials"
    )
    name = models.CharField(max_length=CREDENTIAL_MAX)
    kind = models.CharField(max_length=10, choices=CredentialKind.choices)
    hosts = ArrayField(models.CharField(max_length=HOST_MAX))
    state = models.CharField(
        max_length=10, choices=CredentialState.choices, default=CredentialState.ACTIVE
    )
    version = models.PositiveIntegerField(default=1)
    sealed = models.BinaryField()
    sealed_to = models.CharField(max_length=16, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    rotated_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    rotated_at = models.DateTimeField(null=True, blank=True)
    revoked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(name="one_credential_of_a_name", fields=("department", "name")),
            models.CheckConstraint(
                name="credential_has_hosts",
                condition=Q(hosts__len__gte=1, hosts__len__lte=HOSTS_MAX),
            ),
            models.CheckConstraint(
                name="revoked_credential_has_no_secret",
                condition=Q(state="active", revoked_at__isnull=True) & ~Q(sealed=b"")
                | Q(state="revoked", revoked_at__isnull=False, sealed=b""),
            ),
        )

    def __str__(self) -> str:
        return self.name


class CredentialUse(models.Model):
    """The latest use of a credential for a deployment, in steps of an hour."""

    # A foreign key constraint would lock the credential's row and delay a revocation.
    credential = models.ForeignKey(
        Credential, on_delete=models.CASCADE, related_name="uses", db_constraint=False
    )
    deployment = models.CharField(max_length=NAME_MAX)
    used_at = models.DateTimeField()

    class Meta:
        constraints = (
            models.UniqueConstraint(
                name="one_latest_use_by_a_deployment", fields=("credential", "deployment")
            ),
        )

    def __str__(self) -> str:
        return f"{self.credential_id} by {self.deployment}"
