"""Changes of rows that other processes keep in memory, in the order in which they are read."""

from __future__ import annotations

from django.db import models

SUBJECT_MAX = 120


class Change(models.Model):
    """A changed object, written by a trigger in the transaction that changed it (`changes.sql`).

    `kind` and `subject` name the object. `transaction` is the ID of that transaction. IDs do not
    commit in order, so readers go on from a snapshot of PostgreSQL's (`reading.py`).
    """

    kind = models.CharField(max_length=12)
    subject = models.CharField(max_length=SUBJECT_MAX, blank=True)
    transaction = models.BigIntegerField(db_index=True)

    def __str__(self) -> str:
        return f"{self.kind} {self.subject}"


class ChangeHorizon(models.Model):
    """The single row that says which changes were deleted: those of transactions before `deleted`.

    At `taken_at` no transaction before `next` was running any more; the next deletion goes so far.
    """

    deleted = models.BigIntegerField(default=0)
    next = models.BigIntegerField(default=0)
    taken_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"changes from {self.deleted}"
