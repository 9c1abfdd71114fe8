"""Position of each stream."""

from __future__ import annotations

from django.db import models


class AuditStream(models.Model):
    """The cursor of one destination: it has accepted every event before `next_sequence`.

    A database trigger ensures that it never goes back. `failing_since` is null while sending works;
    `last_error` is the sentence of the last error. `reduced` counts events of which only number,
    hash and a reason were sent.
    """

    name = models.CharField(max_length=40, primary_key=True)
    next_sequence = models.BigIntegerField()
    sent_at = models.DateTimeField(null=True)
    failing_since = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=500, blank=True)
    reduced = models.BigIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return f"stream {self.name}"
