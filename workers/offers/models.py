"""Tasks that worker processes reported."""

from __future__ import annotations

from django.db import models
from django.db.models import JSONField, Value

WORKER_MAX = 120


class WorkerRole(models.TextChoices):
    """Kind of work that a worker process does."""

    ENGINE = "engine"
    COMPUTE = "compute"


class WorkerTasks(models.Model):
    """Report of a worker process at `seen_at`. `tasks` maps names of tasks to their `package` there
    and to `lacks`, the reason why the worker does not offer the task; empty if it does."""

    worker = models.CharField(max_length=WORKER_MAX, unique=True)
    role = models.CharField(max_length=10, choices=WorkerRole.choices)
    tasks = models.JSONField(default=dict, db_default=Value({}, JSONField()))
    seen_at = models.DateTimeField()

    class Meta:
        ordering = ("worker",)

    def __str__(self) -> str:
        return self.worker
