"""Assignments of deployments to engine workers."""

from __future__ import annotations

from django.db import models

WORKER_MAX = 120
REASON_MAX = 200


class Placement(models.Model):
    """One deployment assigned to one engine worker, which loads it; only the controller writes it.

    `reason` is why this worker was chosen. A worker unloads what is no longer assigned to it.
    """

    deployment = models.ForeignKey(
        "workers.Deployment", on_delete=models.CASCADE, related_name="placements"
    )
    worker = models.CharField(max_length=WORKER_MAX, db_index=True)
    since = models.DateTimeField()
    reason = models.CharField(max_length=REASON_MAX, blank=True)

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(
                fields=("deployment", "worker"), name="one_placement_per_worker"
            ),
        )

    def __str__(self) -> str:
        return f"{self.deployment_id}@{self.worker}"
