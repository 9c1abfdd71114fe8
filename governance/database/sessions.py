"""Sessions of the database as the controller sees them, and who holds up whom.

Only the controller's role may call the functions behind this (migration `named_locks`).
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
# A wait that is worth a word.
_WAITS_S = 1.0
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Session:
    """One connection of a client. `state` is empty where the tables' owner may not see it.

    `transaction_s` is the age of its transaction, `idle_s` how long it has run no statement, and
    `waits_s` how long it has waited for a lock that the sessions `blocked_by` hold or queue for.
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
    """A session that waits for a lock, and those that have what it waits for and wait themselves
    for nothing."""

    waits: Session
    holders: tuple[Session, ...]

    def __str__(self) -> str:
        who = " and ".join(map(str, self.holders[:_NAMED])) or "a session that has ended"
        return f"{self.waits.role} ({self.waits.application}) waits for {who}."


def sessions_read() -> list[Session]:
    """Return all sessions of this database but the caller's."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {_COLUMNS} FROM assay_sessions()")  # noqa: S608 (our own names)
        rows = cursor.fetchall()
    return [_session(row) for row in rows]


def _session(row: tuple[Any, ...]) -> Session:
    # What it waits for comes as a list.
    values: list[Any] = [tuple(value) if isinstance(value, list) else value for value in row]
    return Session(*values)


def session_end(session: Session) -> bool:
    """End a session of a process of ours; return whether it was there."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT assay_session_end(%s, %s)", [session.pid, session.began_at])
        return bool(cursor.fetchone()[0])


def blockages(sessions: Sequence[Session], *, longer_than_s: float = _WAITS_S) -> list[Blockage]:
    """Return who waits for whom, the longest wait first."""
    known = {session.pid: session for session in sessions}
    waiting = [one for one in sessions if (one.waits_s or 0) > longer_than_s]
    waiting.sort(key=lambda one: -(one.waits_s or 0))
    return [Blockage(one, tuple(_holders(one, known))) for one in waiting]


def _holders(waits: Session, known: dict[int, Session]) -> Iterator[Session]:
    """Follow who waits for whom to those that do not wait themselves."""
    seen, following = {waits.pid}, list(waits.blocked_by)
    while following:
        pid = following.pop()
        if pid in seen or pid not in known:
            continue
        seen.add(pid)
        if known[pid].blocked_by:
            following += known[pid].blocked_by
        else:
            yield known[pid]


def blocked_sentence() -> str:
    """Say which session holds up which; empty without one, and outside of the controller."""
    with connection.cursor() as cursor:
        cursor.execute(_MAY)
        if cursor.fetchone() != (True,):
            return ""
    return " ".join(map(str, blockages(sessions_read())[:_NAMED]))
