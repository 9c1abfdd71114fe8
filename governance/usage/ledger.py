"""The lock under which ledger and counters can be compared while requests go on."""

from __future__ import annotations

from governance.database.locks import lock, lock_shared


def ledger_lock(*, shared: bool) -> None:
    """Hold the ledger still until the transaction ends: shared by those who write to it or hold
    budgets, alone by who compares it with the counters.
    """
    if shared:
        lock_shared("ledger")
    else:
        lock("ledger")
