"""The lock for comparing ledger and counters while requests run."""

from __future__ import annotations

from governance.database.locks import lock, lock_shared


def ledger_lock(*, shared: bool) -> None:
    """Lock the ledger until the transaction ends: shared to write to it or to hold budgets, or
    exclusively to compare it with the counters.
    """
    if shared:
        lock_shared("ledger")
    else:
        lock("ledger")
