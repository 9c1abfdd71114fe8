"""Tables that are partitioned by month: how long they are kept, and the exports of their months."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

# Months that no setting can shorten: figures of the last quarter read them.
LEAST_MONTHS = 4
MOST_MONTHS = 120


class Growing(models.TextChoices):
    """A table that is partitioned by month."""

    USAGE = "usage", "usage records"
    JOB_EVENTS = "job_events", "logs and curves of jobs"

    @property
    def table(self) -> str:
        """Name of its table in the database."""
        return _TABLES[self][0]

    @property
    def column(self) -> str:
        """Column with the time that decides on the month."""
        return _TABLES[self][1]

    @property
    def default_months(self) -> int:
        """Whole months that are kept unless an administrator sets another number."""
        return 13


_TABLES = {
    Growing.USAGE: ("governance_usagerecord", "occurred_at"),
    Growing.JOB_EVENTS: ("workers_jobevent", "at"),
}


class RetentionRule(models.Model):
    """Number of whole months for which a table is kept; null keeps it forever. Without a rule, the
    default of the table applies."""

    name = models.CharField(max_length=20, choices=Growing.choices, primary_key=True)
    months = models.PositiveSmallIntegerField(null=True)
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = (
            models.CheckConstraint(
                name="retention_within_bounds",
                condition=Q(months__isnull=True)
                | Q(months__gte=LEAST_MONTHS, months__lte=MOST_MONTHS),
            ),
        )

    def __str__(self) -> str:
        return f"{self.name}: {self.months} months"


class ArchiveState(models.TextChoices):
    """`writing`: some files are in the store. `verified`: all rows are, and were read back.
    `dropped`: the month is no longer in the database. `cleared`: nor is anything that referred to
    its rows."""

    WRITING = "writing"
    VERIFIED = "verified"
    DROPPED = "dropped"
    CLEARED = "cleared"


class ArchivedMonth(models.Model):
    """The export of one month of a table to the artifact store, as Parquet files.

    `files` has the SHA-256, rows, bytes, and the first and last ID of each file, by ascending ID.
    `error` is why the last attempt failed, or empty.
    """

    name = models.CharField(max_length=20, choices=Growing.choices)
    month = models.DateField()
    state = models.CharField(
        max_length=8, choices=ArchiveState.choices, default=ArchiveState.WRITING
    )
    files = models.JSONField(default=list)
    rows = models.PositiveBigIntegerField(default=0)
    size_bytes = models.PositiveBigIntegerField(default=0)
    error = models.CharField(max_length=500, blank=True, default="")
    started_at = models.DateTimeField(auto_now_add=True)
    tried_at = models.DateTimeField(auto_now=True)
    verified_at = models.DateTimeField(null=True)
    dropped_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-month", "name")
        constraints = (
            models.UniqueConstraint(fields=("name", "month"), name="one_archive_of_a_month"),
        )

    def __str__(self) -> str:
        return f"{self.get_name_display()} of {self.month:%Y-%m}"
