"""Tasks that each worker process offers, as it reported them."""

from __future__ import annotations

from django.db import models
from django.db.models import JSONField, Value

WORKER_MAX = 120


class WorkerRole(models.TextChoices):
    """Work that a process takes."""

    ENGINE = "engine"
    COMPUTE = "compute"


class WorkerTasks(models.Model):
    """One worker process. `tasks` maps the name of each task to its `package` there, and to what
    it `lacks`, which is empty for a task that it offers. It was reported at `seen_at`."""

    worker = models.CharField(max_length=WORKER_MAX, unique=True)
    role = models.CharField(max_length=10, choices=WorkerRole.choices)
    tasks = models.JSONField(default=dict, db_default=Value({}, JSONField()))
    seen_at = models.DateTimeField()

    class Meta:
        ordering = ("worker",)

    def __str__(self) -> str:
        return self.worker
