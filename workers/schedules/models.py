"""Jobs that start at set times."""

from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.db import models
from django.db.models import Q

from governance.bounds import TITLE_MAX
from workers.schedules.cron import due_times

CRON_MAX = 100
ZONE_MAX = 64
SCHEDULES_MAX = 100
# Number of latest runs that are kept of a schedule.
RUNS_KEPT = 50
TIMES_SHOWN = 3


class ScheduleKind(models.TextChoices):
    """Kind of the jobs that a schedule starts."""

    EVALUATE = "evaluate", "evaluation"
    FINE_TUNE = "fine_tune", "fine-tune"


class ScheduleState(models.TextChoices):
    """`suspended`: stopped by the platform for `reason` until a person resumes it."""

    ACTIVE = "active"
    PAUSED = "paused"
    SUSPENDED = "suspended"


class Schedule(models.Model):
    """A job request, and the times at which it is queued.

    `request` has the schema of `workers.schedules.requests`. Jobs are requested as `owner`, the
    person who created or last resumed the schedule. `refusals` counts consecutive refusals. Unless
    `run_unchanged`, a time is skipped if the request's newest versions are those of the last job.
    """

    name = models.CharField(max_length=TITLE_MAX)
    department = models.ForeignKey(
        "governance.Department", on_delete=models.PROTECT, related_name="+"
    )
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(max_length=20, choices=ScheduleKind.choices)
    title = models.CharField(max_length=200)
    request = models.JSONField()
    cron = models.CharField(max_length=CRON_MAX)
    time_zone = models.CharField(max_length=ZONE_MAX, default="UTC")
    state = models.CharField(
        max_length=10, choices=ScheduleState.choices, default=ScheduleState.ACTIVE
    )
    reason = models.CharField(max_length=500, blank=True, default="")
    next_due_at = models.DateTimeField(null=True, blank=True)
    run_unchanged = models.BooleanField(default=False, db_default=False)
    refusals = models.PositiveSmallIntegerField(default=0)
    last_job = models.ForeignKey(
        "workers.Job", on_delete=models.SET_NULL, related_name="+", null=True, blank=True
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(fields=("department", "name"), name="one_schedule_a_name"),
            models.CheckConstraint(
                name="active_schedule_has_a_time",
                condition=Q(state="active", next_due_at__isnull=False)
                | (~Q(state="active") & Q(next_due_at__isnull=True)),
            ),
        )
        indexes = (
            models.Index(
                fields=("next_due_at",), condition=Q(state="active"), name="schedules_due"
            ),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def next_due(self) -> list[datetime]:
        """The next `TIMES_SHOWN` times in UTC; empty unless active."""
        if self.next_due_at is None:
            return []
        more = due_times(self.cron, self.time_zone, self.next_due_at, TIMES_SHOWN - 1)
        return [self.next_due_at, *more]


class RunOutcome(models.TextChoices):
    """`skipped`: the previous job was still running, or no version was new. `refused`: the job
    request was refused."""

    STARTED = "started"
    SKIPPED = "skipped"
    REFUSED = "refused"


class ScheduleRun(models.Model):
    """Outcome of one due time. `version` (to evaluate or to start from) and `data` name the
    versions that the request resolved to. `requested_by` is the person who ran it at another
    time."""

    schedule = models.ForeignKey(Schedule, on_delete=models.CASCADE, related_name="runs")
    due_at = models.DateTimeField()
    at = models.DateTimeField(auto_now_add=True)
    outcome = models.CharField(max_length=10, choices=RunOutcome.choices)
    reason = models.CharField(max_length=500, blank=True, default="")
    version = models.CharField(max_length=120, blank=True, default="", db_default="")
    data = models.CharField(max_length=120, blank=True, default="")
    job = models.ForeignKey(
        "workers.Job", on_delete=models.SET_NULL, related_name="+", null=True, blank=True
    )
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", null=True, blank=True
    )

    class Meta:
        ordering = ("-due_at", "-id")
        constraints = (
            models.UniqueConstraint(fields=("schedule", "due_at"), name="one_run_a_due_time"),
        )

    def __str__(self) -> str:
        return f"{self.schedule_id}: {self.due_at:%Y-%m-%d %H:%M} {self.outcome}"
