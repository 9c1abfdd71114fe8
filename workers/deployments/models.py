"""Approved releases made servable, and the worker processes that have loaded them."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q


class DeploymentState(models.TextChoices):
    """`refused`: a replica would not load it, for the reason in `message`."""

    PENDING = "pending"
    SERVING = "serving"
    REFUSED = "refused"
    STOPPED = "stopped"


class Deployment(models.Model):
    """An approved release under the name that applications call it by."""

    name = models.SlugField(max_length=80)
    release = models.ForeignKey(
        "registry.Release", on_delete=models.PROTECT, related_name="deployments"
    )
    department = models.ForeignKey("governance.Department", on_delete=models.PROTECT)
    state = models.CharField(
        max_length=10, choices=DeploymentState.choices, default=DeploymentState.PENDING
    )
    message = models.CharField(max_length=1000, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    stopped_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("name", "-id")
        constraints = (
            models.UniqueConstraint(
                fields=("name",),
                condition=Q(state__in=("pending", "serving")),
                name="one_live_deployment_per_name",
            ),
        )

    def __str__(self) -> str:
        return self.name


class ReplicaState(models.TextChoices):
    """Where one worker's copy stands."""

    LOADING = "loading"
    READY = "ready"
    REFUSED = "refused"
    STOPPED = "stopped"


class Replica(models.Model):
    """One worker process and one deployment. `loaded_digest` is what was hashed while loading."""

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="replicas")
    worker = models.CharField(max_length=120)
    state = models.CharField(max_length=10, choices=ReplicaState.choices)
    loaded_digest = models.CharField(max_length=64, blank=True)
    message = models.CharField(max_length=1000, blank=True)
    load_seconds = models.FloatField(null=True, blank=True)
    started_at = models.DateTimeField(auto_now_add=True)
    heartbeat_at = models.DateTimeField()

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(fields=("deployment", "worker"), name="one_replica_per_worker"),
        )

    def __str__(self) -> str:
        return f"{self.deployment_id}@{self.worker}"
