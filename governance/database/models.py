"""Rows that exist only to be locked."""

from __future__ import annotations

from django.db import models

from governance.bounds import NAME_MAX


class NamedLock(models.Model):
    """A named lock (`governance.database.locks`).

    A transaction holds it by locking the row. For a session that holds it longer, the row has its
    process ID on the server and its start; the lock ends with that session.
    """

    name = models.CharField(max_length=2 * NAME_MAX, primary_key=True)
    pid = models.IntegerField(null=True)
    session_began_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.name
