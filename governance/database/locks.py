"""Locks by name, which only the roles of the control plane can take.

PostgreSQL lets every role that can connect take any advisory lock, and keep it. These locks are
rows of a table that workers' roles have no privilege on, so that no worker holds up what takes
them. A name's row is made when it is first locked.

Order them as "Order of locks" in ARCHITECTURE.md does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError, OperationalError, connection, transaction

_SELECT = "SELECT pid, session_began_at FROM governance_namedlock WHERE name = %s FOR"
_INSERT = "INSERT INTO governance_namedlock (name) VALUES (%s) ON CONFLICT DO NOTHING RETURNING 1"
# Of a session that another role began, PostgreSQL does not show when.
_LIVES = """
SELECT EXISTS (
    SELECT FROM pg_stat_activity
     WHERE pid = %s AND coalesce(backend_start = %s, true)
)
"""
_HOLD = """
UPDATE governance_namedlock AS held SET pid = session.pid, session_began_at = session.backend_start
  FROM pg_stat_activity AS session
 WHERE held.name = %s AND session.pid = pg_backend_pid()
"""
_RELEASE = """
UPDATE governance_namedlock SET pid = NULL, session_began_at = NULL
 WHERE name = %s AND pid = pg_backend_pid()
"""
# 0 would set no limit.
_AT_ONCE_MS = 1
_POLL_S = 0.1


def lock(name: str) -> None:
    """Wait for the lock, and hold it until the transaction ends."""
    _wait(name, "UPDATE")


def lock_shared(name: str, *, patience_s: float = 10.0) -> None:
    """As `lock`, together with others who share it; waits for a session that holds it, too.

    Raises:
        OperationalError: a session still holds it after `patience_s`.
    """
    until = time.monotonic() + patience_s
    while True:
        # What waits gives up its share, so that the session can release the lock.
        with transaction.atomic():
            held_by = _wait(name, "SHARE")
            if not _lives(held_by):
                return
            transaction.set_rollback(True)
        if time.monotonic() > until:
            raise OperationalError(f"The lock {name} is held by another process.")
        time.sleep(_POLL_S)


def try_lock(name: str) -> bool:
    """Hold the lock until the transaction ends, unless another does; return whether it is held."""
    _check_transaction()
    with connection.cursor() as cursor:
        cursor.execute(f"{_SELECT} UPDATE SKIP LOCKED", [name])
        if (held_by := cursor.fetchone()) is not None:
            return not _lives(held_by)
        cursor.execute("SELECT 1 FROM governance_namedlock WHERE name = %s", [name])
        return cursor.fetchone() is None and _inserted(name, keep=True)


def try_lock_once(name: str) -> bool:
    """As `try_lock`, for one of very many names: no row stays."""
    _check_transaction()
    return _inserted(name, keep=False)


def wait_at_most(milliseconds: int) -> None:
    """Wait no longer for each further lock of this transaction, such as of a row.

    What waits longer ends in an OperationalError that `is_lock_timeout` knows.
    """
    _check_transaction()
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [str(milliseconds)])


def is_lock_timeout(error: DatabaseError) -> bool:
    """Return whether the error is that another session held a lock for too long."""
    return getattr(error.__cause__, "sqlstate", None) == "55P03"


@contextmanager
def session_lock(name: str) -> Iterator[bool]:
    """Try to hold the lock beyond a transaction, for work that takes minutes. It ends with the
    block, or with the session: who is cut off from the database has lost it.
    """
    with transaction.atomic():
        held = try_lock(name)
        if held:
            with connection.cursor() as cursor:
                cursor.execute(_HOLD, [name])
    try:
        yield held
    finally:
        if held:
            with connection.cursor() as cursor:
                cursor.execute(_RELEASE, [name])


def _wait(name: str, strength: str) -> Any:
    _check_transaction()
    with connection.cursor() as cursor:
        while True:
            cursor.execute(f"{_SELECT} {strength}", [name])
            if (held_by := cursor.fetchone()) is not None:
                return held_by
            # Whoever inserts the row has the lock; a second one waits here, and then finds it.
            cursor.execute(_INSERT, [name])
            if cursor.fetchone() is not None:
                return (None, None)


def _check_transaction() -> None:
    if not connection.in_atomic_block:
        raise RuntimeError("A lock outside of a transaction would end at once.")


def _lives(held_by: Any) -> bool:
    """Return whether the session that the row names still lives."""
    pid, began_at = held_by
    if pid is None:
        return False
    with connection.cursor() as cursor:
        # Within a transaction PostgreSQL shows sessions as they were when it was asked first.
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(_LIVES, [pid, began_at])
        return bool(cursor.fetchone()[0])


def _inserted(name: str, *, keep: bool) -> bool:
    """Insert the row and thereby hold the lock, unless another transaction is doing so."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SHOW lock_timeout")
            (patience,) = cursor.fetchone()
            wait_at_most(_AT_ONCE_MS)
            cursor.execute(_INSERT, [name])
            inserted = cursor.fetchone() is not None
            if inserted and not keep:
                # Another inserts it only once this transaction has ended.
                cursor.execute("DELETE FROM governance_namedlock WHERE name = %s", [name])
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", [patience])
            return inserted
    except OperationalError as error:
        if not is_lock_timeout(error):
            raise
        return False
