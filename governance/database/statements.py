"""Time limits of statements that read large tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import OperationalError, connection, transaction

from governance.errors import DomainError


@contextmanager
def statements_within(milliseconds: int, error: DomainError) -> Iterator[None]:
    """Cancel a statement of the block that takes longer than this, and raise `error` instead."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT current_setting('statement_timeout'),"
                " set_config('statement_timeout', %s, true)",
                [str(milliseconds)],
            )
            before = cursor.fetchone()[0]
            yield
            # The end of a savepoint does not undo its settings; a rollback does.
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", [before])
    except OperationalError as failure:
        if getattr(failure.__cause__, "sqlstate", None) != "57014":
            raise
        raise error from failure
