"""Errors of the database after a concurrent change of the same rows."""

from __future__ import annotations

from django.db import DatabaseError, IntegrityError

from governance.database.locks import is_lock_timeout
from governance.errors import DomainError, Unavailable, WrongState

# PostgreSQL's class "transaction rollback": deadlocks and serialization failures.
_ROLLED_BACK = "40"


def conflict_of(error: DatabaseError) -> DomainError | None:
    """Return the refusal for a database error; None if it is not a conflict. The transaction was
    rolled back, after a deadlock or when `lock_timeout` was over, so it may be retried.
    """
    state = getattr(error.__cause__, "sqlstate", None) or ""
    if isinstance(error, IntegrityError) or state.startswith(_ROLLED_BACK):
        return WrongState(
            "Another request changed the same data at the same time, so nothing was changed.",
            code="conflict",
            hint="Load it again, then retry.",
        )
    if is_lock_timeout(error):
        return Unavailable(
            "Another database session has locked the data, so nothing was changed.",
            code="locked",
            hint="Try again shortly. If it persists, the Health page names the session.",
            retry_after=5,
        )
    return None
