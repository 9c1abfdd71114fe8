"""Credentials that are not passwords: departments' API keys and people's access tokens."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from governance.bounds import NAME_MAX, TITLE_MAX

PURPOSE_MAX = 300


class ApiKey(models.Model):
    """A secret that is shown once and stored as an HMAC under a versioned pepper.

    It represents either a department (an application's key) or a person (an access token for the
    command line and notebooks, which can do no more than that person).

    `owner` is the person who is responsible for it. `allowed_deployments` (names) and `networks`
    (CIDRs) restrict it; empty means any. A rotated key has a `successor` with the same `root`, the
    first key of the chain. Limits belong to the root, so that both secrets of an application share
    them.

    `proof_method` and `proved_at` are the latest second factor that the person used with this
    token.
    """

    public_id = models.CharField(max_length=16, unique=True)
    secret_hmac = models.BinaryField(max_length=32)
    pepper_version = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=TITLE_MAX)
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
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="owned_keys",
    )
    purpose = models.CharField(max_length=PURPOSE_MAX, blank=True)
    scopes = ArrayField(models.CharField(max_length=60), default=list)
    allowed_deployments = ArrayField(
        models.CharField(max_length=NAME_MAX), default=list, blank=True
    )
    networks = ArrayField(models.CharField(max_length=43), default=list, blank=True)
    rotated_from = models.OneToOneField(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="successor"
    )
    root = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    revoked_reason = models.CharField(max_length=200, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    proof_method = models.CharField(max_length=20, blank=True, default="")
    proved_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                name="only_a_persons_token_carries_their_proof",
                condition=Q(proof_method="", proved_at__isnull=True)
                | (
                    Q(person__isnull=False, proved_at__isnull=False)
                    & Q(proof_method__in=("webauthn", "totp", "recovery_codes"))
                ),
            ),
            models.CheckConstraint(
                name="key_has_exactly_one_owner",
                condition=Q(department__isnull=False, person__isnull=True)
                | Q(department__isnull=True, person__isnull=False),
            ),
            models.CheckConstraint(
                name="key_expires_after_it_is_made",
                condition=Q(expires_at__gt=models.F("created_at")),
            ),
            models.CheckConstraint(
                name="key_that_follows_another_knows_its_root",
                condition=Q(rotated_from__isnull=True, root__isnull=True)
                | Q(rotated_from__isnull=False, root__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return f"{self.name} ({self.public_id})"


class PlaygroundToken(models.Model):
    """Half of a credential for one deployment on `/v1`, created for a signed-in person's session.

    The other half is the session's cookie: the gateway accepts the token only with it, from
    `address`, for `deployment`, and while the session, the person's roles and `expires_at` (ten
    minutes) allow it. `department` pays. The management API does not accept it.
    """

    public_id = models.CharField(max_length=16, unique=True)
    secret_hmac = models.BinaryField(max_length=32)
    pepper_version = models.PositiveSmallIntegerField()
    person = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="playground_tokens"
    )
    # The token is deleted with its session. If the session's key is renewed, this row stays.
    session = models.ForeignKey(
        "usersessions.UserSession", on_delete=models.CASCADE, related_name="playground_tokens"
    )
    session_epoch = models.PositiveIntegerField()
    department = models.ForeignKey(
        "governance.Department", on_delete=models.PROTECT, related_name="+"
    )
    deployment = models.CharField(max_length=NAME_MAX)
    address = models.CharField(max_length=43, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                name="playground_token_lives_ten_minutes_at_most",
                condition=Q(expires_at__lte=models.F("created_at") + timedelta(minutes=10)),
            ),
        )

    def __str__(self) -> str:
        return f"playground token {self.public_id}"
