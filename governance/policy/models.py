"""The rules that are in force, as numbered, immutable versions."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q


class PolicyVersion(models.Model):
    """One immutable set of rules; at most one is active."""

    number = models.PositiveIntegerField(unique=True)
    rules = models.JSONField()
    digest = models.CharField(max_length=64)
    note = models.CharField(max_length=500, blank=True)
    active = models.BooleanField(default=False)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-number",)
        constraints = (
            models.UniqueConstraint(
                fields=("active",), condition=Q(active=True), name="one_active_policy"
            ),
        )

    def __str__(self) -> str:
        return f"policy {self.number}"
