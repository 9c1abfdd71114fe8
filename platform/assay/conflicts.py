"""Errors of the database after a concurrent change of the same rows."""

from __future__ import annotations

from django.db import DatabaseError, IntegrityError

from governance.database.locks import is_lock_timeout
from governance.errors import DomainError, Unavailable, WrongState

# PostgreSQL's class "transaction rollback": a deadlock, or two that cannot be put in an order.
_ROLLED_BACK = "40"


def conflict_of(error: DatabaseError) -> DomainError | None:
    """The refusal that it amounts to; None for what is no conflict. Of two that wait for each other
    PostgreSQL ends one, and nothing of that one is left: it may be tried again. So may what waited
    for a lock for as long as `lock_timeout` allows.
    """
    state = getattr(error.__cause__, "sqlstate", None) or ""
    if isinstance(error, IntegrityError) or state.startswith(_ROLLED_BACK):
        return WrongState(
            "Something else changed it at the same time, so nothing was changed.",
            code="conflict",
            hint="Read it again, then retry.",
        )
    if is_lock_timeout(error):
        return Unavailable(
            "Another session of the database holds what this needs, so nothing was changed.",
            code="locked",
            hint="Try again shortly. If it lasts, Health says which session it is.",
            retry_after=5,
        )
    return None
