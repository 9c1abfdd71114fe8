"""Assignments of deployments to engine workers."""

from __future__ import annotations

from django.db import models

WORKER_MAX = 120
REASON_MAX = 200


class Placement(models.Model):
    """Assignment of a deployment to an engine worker, which only the controller writes.

    `reason` says why this worker was chosen. A worker unloads deployments that are no longer
    assigned to it.
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
