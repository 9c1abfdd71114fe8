"""Tables of the surfaces themselves."""

from __future__ import annotations

from django.db import models


class IdempotencyRecord(models.Model):
    """The answer to a POST with an `Idempotency-Key`, kept for a day.

    `fingerprint` is the SHA-256 of method, path and body; the same key with another request is a
    conflict. The record is written in the transaction of the request's work; until then a lock
    reserves the key.
    """

    principal = models.CharField(max_length=80)
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField()
    body = models.JSONField(null=True)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("principal", "key"), name="idempotency_key_once"),
        )

    def __str__(self) -> str:
        return self.key
