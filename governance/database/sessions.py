"""Database sessions as the controller sees them, and which session blocks which.

Only the controller's role may call the SQL functions used here (migration `named_locks`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection

_COLUMNS = (
    "pid, began_at, role, application, client, state, transaction_at, transaction_s, idle_s,"
    " waits_s, blocked_by, locks, advisory"
)
_MAY = "SELECT has_function_privilege('assay_sessions()', 'EXECUTE')"
# Shorter waits are not reported.
_WAITS_S = 1.0
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Session:
    """A client's connection. `state` is empty if the tables' owner may not see it.

    In seconds: `transaction_s` is the age of its transaction, `idle_s` the time since its last
    statement, `waits_s` the wait for a lock that the sessions `blocked_by` hold or queue for.
    """

    pid: int
    began_at: datetime
    role: str
    application: str
    client: str
    state: str
    transaction_at: datetime | None
    transaction_s: float | None
    idle_s: float | None
    waits_s: float | None
    blocked_by: tuple[int, ...]
    locks: int
    advisory: int

    def __str__(self) -> str:
        parts = [f"process {self.pid}", self.application, self.client and f"from {self.client}"]
        if self.transaction_s is not None:
            parts.append(f"transaction of {self.transaction_s:.0f} s")
        return f"{self.role} ({', '.join(part for part in parts if part)})"


@dataclass(frozen=True, slots=True)
class Blockage:
    """A session that waits for a lock, and the sessions at the end of the chain, which do not
    wait."""

    waits: Session
    holders: tuple[Session, ...]

    def __str__(self) -> str:
        holders = " and ".join(map(str, self.holders[:_NAMED])) or "a session that has ended"
        return f"{self.waits.role} ({self.waits.application}) waits for {holders}."


def sessions_read() -> list[Session]:
    """Return all sessions of this database except the caller's."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {_COLUMNS} FROM assay_sessions()")  # noqa: S608 (our own names)
        rows = cursor.fetchall()
    return [_session(row) for row in rows]


def _session(row: tuple[Any, ...]) -> Session:
    # `blocked_by` comes as a list.
    values: list[Any] = [tuple(value) if isinstance(value, list) else value for value in row]
    return Session(*values)


def session_end(session: Session) -> bool:
    """End a session of one of Assay's processes; return whether it existed."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT assay_session_end(%s, %s)", [session.pid, session.began_at])
        return bool(cursor.fetchone()[0])


def blockages(sessions: Sequence[Session], *, longer_than_s: float = _WAITS_S) -> list[Blockage]:
    """Return the waiting sessions with the sessions that block them, the longest wait first."""
    by_pid = {session.pid: session for session in sessions}
    waiting = [session for session in sessions if (session.waits_s or 0) > longer_than_s]
    waiting.sort(key=lambda session: -(session.waits_s or 0))
    return [Blockage(session, tuple(_holders(session, by_pid))) for session in waiting]


def _holders(waits: Session, by_pid: dict[int, Session]) -> Iterator[Session]:
    """Follow the chain of waits; yield the sessions that do not wait."""
    seen, queue = {waits.pid}, list(waits.blocked_by)
    while queue:
        pid = queue.pop()
        if pid in seen or pid not in by_pid:
            continue
        seen.add(pid)
        if by_pid[pid].blocked_by:
            queue += by_pid[pid].blocked_by
        else:
            yield by_pid[pid]


def blocked_sentence() -> str:
    """Return sentences on blocked sessions; empty if none are, and outside the controller."""
    with connection.cursor() as cursor:
        cursor.execute(_MAY)
        if cursor.fetchone() != (True,):
            return ""
    return " ".join(map(str, blockages(sessions_read())[:_NAMED]))
