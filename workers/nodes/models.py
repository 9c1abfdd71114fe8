"""Machines that run workers without database and store, and their credentials."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import JSONField, Q, Value

from workers.control.messages import NODE_NAME_MAX

REASON_MAX = 300
# Digits of the public key in a realm.
REALM_KEY = 16


class NodeState(models.TextChoices):
    """State of a node.

    `invited`: has a token and has not joined. `cordoned`: gets no new work. `draining`: gets no new
    work, and its deployments move to other workers. `revoked`: its key no longer works.
    """

    INVITED = "invited", "Invited"
    ENROLLED = "enrolled", "Active"
    CORDONED = "cordoned", "Cordoned"
    DRAINING = "draining", "Draining"
    REVOKED = "revoked", "Revoked"


class Node(models.Model):
    """One machine. `public_key` (Ed25519, hexadecimal) is the key with which it joined.

    `facts` is its latest report, at `seen_at`. `conflict_at` is when two processes last used its
    key at once. `broker_denials` are the commands that the broker denied.
    """

    name = models.SlugField(max_length=NODE_NAME_MAX, unique=True)
    state = models.CharField(max_length=10, choices=NodeState.choices, default=NodeState.INVITED)
    public_key = models.CharField(max_length=64, blank=True, default="")
    facts = models.JSONField(default=dict, db_default=Value({}, JSONField()))
    seen_at = models.DateTimeField(null=True, blank=True)
    joined_at = models.DateTimeField(null=True, blank=True)
    conflict_at = models.DateTimeField(null=True, blank=True)
    broker_denials = models.JSONField(default=dict, db_default=Value({}, JSONField()))
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)
        constraints = (
            models.UniqueConstraint(
                fields=("public_key",), condition=~Q(public_key=""), name="one_node_per_key"
            ),
            models.CheckConstraint(
                name="a_node_works_only_with_a_key",
                condition=~Q(public_key="") | Q(state__in=("invited", "revoked")),
            ),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def prefix(self) -> str:
        """Prefix of the names of the node's workers."""
        return f"{self.name}/"

    @property
    def realm(self) -> str:
        """Name of this enrollment on the broker; it changes with the key. Empty before the node has
        joined."""
        return f"{self.name}.{self.public_key[:REALM_KEY]}" if self.public_key else ""


class NodeToken(models.Model):
    """A token with which a machine joins once. Its secret is stored as an HMAC."""

    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="tokens")
    public_id = models.CharField(max_length=12, unique=True)
    secret_hmac = models.BinaryField(max_length=32)
    pepper_version = models.PositiveSmallIntegerField()
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.UniqueConstraint(
                fields=("node",),
                condition=Q(used_at=None, revoked_at=None),
                name="one_open_token_per_node",
            ),
            models.CheckConstraint(
                name="a_node_token_ends_once", condition=Q(used_at=None) | Q(revoked_at=None)
            ),
        )

    def __str__(self) -> str:
        return f"token {self.public_id} of {self.node_id}"


class SessionEnd(models.TextChoices):
    """Reason why a session ended early."""

    RENEWED = "renewed", "Renewed"
    REPLACED = "replaced", "Replaced by another sign-in"
    REVOKED = "revoked", "Node revoked"


class NodeSession(models.Model):
    """A signed-in machine. `challenge_sha256` is unique, so that a challenge is answered once.

    `used_at` is when its token was first used; None while the answer with the token may have been
    lost. `broker_sha256` is the hash of its broker password, in the form that the broker stores.
    """

    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="sessions")
    public_id = models.CharField(max_length=12, unique=True)
    secret_hmac = models.BinaryField(max_length=32)
    pepper_version = models.PositiveSmallIntegerField()
    challenge_sha256 = models.CharField(max_length=64, unique=True)
    address = models.CharField(max_length=64, blank=True)
    broker_sha256 = models.CharField(max_length=64, blank=True, default="", db_default="")
    started_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    ended_as = models.CharField(max_length=10, choices=SessionEnd.choices, blank=True)

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.UniqueConstraint(
                fields=("node",), condition=Q(ended_at=None), name="one_session_per_node"
            ),
            models.CheckConstraint(
                name="an_ended_node_session_says_why",
                condition=Q(ended_at=None, ended_as="")
                | (Q(ended_at__isnull=False) & ~Q(ended_as="")),
            ),
        )

    def __str__(self) -> str:
        return f"session {self.public_id} of {self.node_id}"


class NodeSample(models.Model):
    """Utilization of a node in one minute, from 0 to 1. `device` is the mean of its devices; it and
    `device_memory` are None without devices.
    """

    node = models.ForeignKey(Node, on_delete=models.CASCADE, related_name="samples")
    at = models.DateTimeField()
    cpu = models.FloatField()
    memory = models.FloatField()
    device = models.FloatField(null=True, blank=True)
    device_memory = models.FloatField(null=True, blank=True)

    class Meta:
        ordering = ("at",)
        constraints = (
            models.UniqueConstraint(fields=("node", "at"), name="one_node_sample_per_minute"),
            *(
                models.CheckConstraint(
                    name=f"node_sample_{name}_is_a_part",
                    condition=Q(**{name: None}) | Q(**{f"{name}__gte": 0, f"{name}__lte": 1}),
                )
                for name in ("cpu", "memory", "device", "device_memory")
            ),
        )

    def __str__(self) -> str:
        return f"{self.node_id} at {self.at:%H:%M}"
