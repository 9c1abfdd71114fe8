"""Rows that stand for nothing but the locks that are taken on them."""

from __future__ import annotations

from django.db import models

from governance.bounds import NAME_MAX


class NamedLock(models.Model):
    """A lock by its name (`governance.database.locks`).

    A transaction holds it by locking the row. A session that holds it longer is named by its
    process ID on the server and by when it began; the lock ends with that session.
    """

    name = models.CharField(max_length=2 * NAME_MAX, primary_key=True)
    pid = models.IntegerField(null=True)
    session_began_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.name
