"""The lock under which ledger and counters can be compared while requests go on."""

from __future__ import annotations

from django.db import connection

# Any number that nothing else locks: "ledger" as bytes.
_LOCK = int.from_bytes(b"ledger", "big")


def ledger_lock(*, shared: bool) -> None:
    """Hold the ledger still until the transaction ends: shared by those who write to it or hold
    budgets, alone by who compares it with the counters.
    """
    function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}(%s)", [_LOCK])
