"""Named locks that only the roles of the control plane can take.

PostgreSQL lets every role that can connect take any advisory lock and keep it. These locks are
rows of a table on which workers' roles have no privilege, so that a worker cannot block the
control plane. The first use of a name creates its row.

Take locks in the order of "Order of locks" in ARCHITECTURE.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError, OperationalError, connection, transaction

_SELECT = "SELECT pid, session_began_at FROM governance_namedlock WHERE name = %s FOR"
_INSERT = "INSERT INTO governance_namedlock (name) VALUES (%s) ON CONFLICT DO NOTHING RETURNING 1"
# PostgreSQL hides `backend_start` of sessions of other roles.
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
# 0 would mean "no limit".
_AT_ONCE_MS = 1
_POLL_S = 0.1


def lock(name: str) -> None:
    """Wait for the lock and hold it until the transaction ends."""
    _wait(name, "UPDATE")


def lock_shared(name: str, *, patience_s: float = 10.0) -> None:
    """Hold the lock together with others who share it; also wait for a session that holds it.

    Raises:
        OperationalError: a session still holds it after `patience_s`.
    """
    deadline = time.monotonic() + patience_s
    while True:
        # Give up the shared lock while waiting, so that the session can release its lock.
        with transaction.atomic():
            holder = _wait(name, "SHARE")
            if not _lives(holder):
                return
            transaction.set_rollback(True)
        if time.monotonic() > deadline:
            raise OperationalError(f"The lock {name} is held by another process.")
        time.sleep(_POLL_S)


def try_lock(name: str) -> bool:
    """Take the lock until the transaction ends, if it is free; return whether it was taken."""
    _check_transaction()
    with connection.cursor() as cursor:
        cursor.execute(f"{_SELECT} UPDATE SKIP LOCKED", [name])
        if (holder := cursor.fetchone()) is not None:
            return not _lives(holder)
        cursor.execute("SELECT 1 FROM governance_namedlock WHERE name = %s", [name])
        return cursor.fetchone() is None and _inserted(name, keep=True)


def try_lock_once(name: str) -> bool:
    """Do the same as `try_lock` without leaving a row; for large numbers of names."""
    _check_transaction()
    return _inserted(name, keep=False)


def wait_at_most(milliseconds: int) -> None:
    """Limit the wait for each further lock of this transaction, such as a row's lock.

    A longer wait raises an OperationalError for which `is_lock_timeout` is True.
    """
    _check_transaction()
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [str(milliseconds)])


def is_lock_timeout(error: DatabaseError) -> bool:
    """Return whether the error is a lock timeout: another session held a lock for too long."""
    return getattr(error.__cause__, "sqlstate", None) == "55P03"


@contextmanager
def session_lock(name: str) -> Iterator[bool]:
    """Try to hold the lock beyond a transaction, for work that takes minutes. It ends with the
    block, or with the database session: a lost connection loses the lock.
    """
    with transaction.atomic():
        locked = try_lock(name)
        if locked:
            with connection.cursor() as cursor:
                cursor.execute(_HOLD, [name])
    try:
        yield locked
    finally:
        if locked:
            with connection.cursor() as cursor:
                cursor.execute(_RELEASE, [name])


def _wait(name: str, strength: str) -> Any:
    _check_transaction()
    with connection.cursor() as cursor:
        while True:
            cursor.execute(f"{_SELECT} {strength}", [name])
            if (holder := cursor.fetchone()) is not None:
                return holder
            # The session that inserts the row has the lock; others wait here, then select the row.
            cursor.execute(_INSERT, [name])
            if cursor.fetchone() is not None:
                return (None, None)


def _check_transaction() -> None:
    if not connection.in_atomic_block:
        raise RuntimeError("A lock outside of a transaction would end at once.")


def _lives(holder: Any) -> bool:
    """Return whether the session in the row is still connected."""
    pid, began_at = holder
    if pid is None:
        return False
    with connection.cursor() as cursor:
        # Within a transaction PostgreSQL keeps the list of sessions from the first query.
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(_LIVES, [pid, began_at])
        return bool(cursor.fetchone()[0])


def _inserted(name: str, *, keep: bool) -> bool:
    """Insert the row, which takes the lock; return False if another transaction is doing so."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SHOW lock_timeout")
            (patience,) = cursor.fetchone()
            wait_at_most(_AT_ONCE_MS)
            cursor.execute(_INSERT, [name])
            inserted = cursor.fetchone() is not None
            if inserted and not keep:
                # Another transaction can insert it only after this one has ended.
                cursor.execute("DELETE FROM governance_namedlock WHERE name = %s", [name])
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", [patience])
            return inserted
    except OperationalError as error:
        if not is_lock_timeout(error):
            raise
        return False
