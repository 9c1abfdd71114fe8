"""End database sessions that hold up others, or might.

A process can keep locks and transactions as long as it likes, because a session can lift
PostgreSQL's limits for itself (`statement_timeout` and similar ones). Workers cannot lock what only
the control plane needs, but they can lock what they share with it, such as rows of jobs. So the
controller checks all sessions each second and ends those beyond their bounds: soon if code of a
model may be behind it, later if a person's request may be.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.db import DatabaseError, Error, connection, transaction
from django.utils import timezone

from governance.audit.alarms import Alarm, alarms_add
from governance.audit.services import Subject, audit_record
from governance.database.sessions import (
    Session,
    blockages,
    session_end,
    sessions_read,
)
from governance.principals import background, service_principal
from workers.measurements.loops import LoopTimes
from workers.measurements.models import Measurement

logger = logging.getLogger(__name__)

ACTION = "database:session_end"
ENDED = "database-sessions"
ROUND_S = 1.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of a session. `blocks`: rounds in which it holds up another one; `transaction_s`: age
    of a transaction; `idle_s`: time without a statement in a transaction; `locks`: number of locks,
    which share a table of fixed size with those of all sessions.
    """

    blocks: int
    transaction_s: float
    idle_s: float
    locks: int


# Workers' transactions take milliseconds, and wait only for the database. Other workers skip locked
# rows of jobs, so PostgreSQL does not report them as blocked. Forty sessions with this many locks
# still leave room for others in PostgreSQL's table (by default 64 for each of 100 connections).
WORKERS = Bounds(blocks=5, transaction_s=20, idle_s=5, locks=300)
# Uploads, exports and rebuilt counters take minutes.
OTHERS = Bounds(blocks=900, transaction_s=1800, idle_s=900, locks=5_000)
BOUNDS = {"assay_worker": WORKERS, "assay_web": OTHERS, "assay_controller": OTHERS}
# Shorter waits are normal.
_BLOCKED_S = 0.2
# If a role has no connections left, its sessions that are idle for longer are ended.
_IDLE_S = 30.0
_CROWDED = "It is idle, and its role has no connection left."
_ROLES_EACH_S = 10.0
_EVENT_EACH_S = 10.0
_LISTED = 20
ALARM_FOR = timedelta(minutes=10)
_BLOCKED_ALARM_S = 10.0
_PREPARED = """
SELECT gid, owner FROM pg_prepared_xacts
 WHERE database = current_database() AND prepared < now() - interval '1 minute' ORDER BY prepared
"""
_LIMITS = "SELECT rolname, rolconnlimit FROM pg_roles WHERE rolname = ANY (%s) AND rolconnlimit > 0"
_CONTROLLER = service_principal("controller")


class SessionWatch:
    """Runs rounds in one thread, on one connection.

    A round needs no new entry in PostgreSQL's table of locks, which may be full.
    """

    def __init__(self) -> None:
        self._blocked: Counter[tuple[object, ...]] = Counter()
        self._unrecorded: list[tuple[Session, str]] = []
        self._recorded_at = -_EVENT_EACH_S
        self._limits: dict[str, int] = {}
        self._read_at = -_ROLES_EACH_S

    def run(self) -> int:
        """End sessions beyond their bounds; return the number."""
        sessions = sessions_read()
        self._count(sessions)
        beyond = [(each, reason) for each in sessions if (reason := self._reason(each))]
        ended = [(each, reason) for each, reason in beyond if session_end(each)]
        if not ended:
            ended = [(each, _CROWDED) for each in self._idle(sessions) if session_end(each)]
        for session, reason in ended:
            logger.warning("Ended the database session of %s: %s", session, reason)
        self._unrecorded = [*self._unrecorded, *ended]
        if self._unrecorded and time.monotonic() - self._recorded_at >= _EVENT_EACH_S:
            self._record()
        return len(ended)

    def _record(self) -> None:
        """Record ended sessions. A failure is retried in a later round, and holds up none."""
        try:
            _record(self._unrecorded)
        except DatabaseError as error:
            logger.warning("Ended database sessions are recorded later: %s", error)
        else:
            self._recorded_at = time.monotonic()
            self._unrecorded = []

    def _count(self, sessions: Sequence[Session]) -> None:
        holders = {
            _transaction(holder)
            for blockage in blockages(sessions, longer_than_s=_BLOCKED_S)
            for holder in blockage.holders
        }
        holders |= {_transaction(session) for session in sessions if session.advisory}
        open_transactions = {_transaction(session) for session in sessions}
        self._blocked = Counter(
            {key: n for key, n in self._blocked.items() if key in open_transactions}
        )
        self._blocked.update(holders)

    def _reason(self, session: Session) -> str:
        """Return the reason to end a session; empty if there is none."""
        bounds = BOUNDS.get(session.role)
        if bounds is None:
            return ""
        if self._blocked[_transaction(session)] >= bounds.blocks:
            if session.advisory:
                return "It kept an advisory lock, which no process of Assay takes."
            return f"It held up others for {bounds.blocks} s."
        if (session.transaction_s or 0) > bounds.transaction_s:
            return f"Its transaction is older than {bounds.transaction_s:.0f} s."
        if session.transaction_at is not None and (session.idle_s or 0) > bounds.idle_s:
            return f"Its transaction has run no statement for {bounds.idle_s:.0f} s."
        if session.locks > bounds.locks:
            return f"It holds {session.locks:,} locks."
        return ""

    def _idle(self, sessions: Sequence[Session]) -> list[Session]:
        """Return idle sessions of roles that have reached their limit of connections."""
        if time.monotonic() - self._read_at >= _ROLES_EACH_S:
            self._limits = roles_restore()
            self._read_at = time.monotonic()
        counts = Counter(session.role for session in sessions)
        full = {role for role, limit in self._limits.items() if counts[role] >= limit}
        idle = [each for each in sessions if each.role in full and each.state == "idle"]
        return [each for each in idle if (each.idle_s or 0) > _IDLE_S]


def roles_restore() -> dict[str, int]:
    """Restore settings that a role has changed for itself, and thereby for all its processes;
    return the limit of connections of each role.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT assay_role_settings_restore()")
        for role in cursor.fetchone()[0]:
            _record_settings(role)
        cursor.execute(_LIMITS, [list(BOUNDS)])
        return dict(cursor.fetchall())


def _record_settings(role: str) -> None:
    logger.warning("The database role %s had changed its settings; they were put back", role)
    with background("database-sessions", _CONTROLLER):
        audit_record(
            actor=_CONTROLLER,
            action="database:settings_restore",
            subject=Subject("database_role", role, role),
            reason="A session of the role changed what all its sessions begin with.",
        )
    total = _totals()
    sentence = f"{role} had changed its own settings, which were put back."
    Measurement.keep(ENDED, {"total": total, "last": sentence})


def run(times: LoopTimes, stop: threading.Event) -> None:
    """Watch until `stop`. Keep the connection, since there may be no room for another one."""
    watch = SessionWatch()
    while not stop.is_set():
        try:
            with times.round("database-sessions", ROUND_S):
                watch.run()
        except Error:
            logger.exception("The database's sessions could not be checked")
            connection.close()
        stop.wait(ROUND_S)


def _transaction(session: Session) -> tuple[object, ...]:
    return session.pid, session.began_at, session.transaction_at


@transaction.atomic
def _record(ended: Sequence[tuple[Session, str]]) -> None:
    first, reason = ended[0]
    with background("database-sessions", _CONTROLLER):
        audit_record(
            actor=_CONTROLLER,
            action=ACTION,
            subject=Subject("session", f"{first.role}:{first.pid}", str(first)[:200]),
            reason=reason,
            data={
                "count": len(ended),
                "sessions": [
                    {"session": str(session), "reason": why} for session, why in ended[:_LISTED]
                ],
            },
        )
    total = Counter(_totals())
    total.update(session.role for session, _ in ended)
    Measurement.keep(ENDED, {"total": total, "last": f"The session of {first} was ended: {reason}"})


def _totals() -> dict[str, int]:
    row = Measurement.objects.filter(name=ENDED).first()
    return {} if row is None else dict(row.figures["total"])


def sessions_ended() -> str:
    """Return a sentence on the last ended session, if it is recent."""
    row = Measurement.objects.filter(
        name=ENDED, measured_at__gte=timezone.now() - ALARM_FOR
    ).first()
    if row is None:
        return ""
    return f"{row.figures['last']} Check that every worker is yours."


def sessions_block() -> str:
    """Return sentences on long blockages, and on locks that the watch cannot see or end."""
    sessions = sessions_read()
    sentences = [str(one) for one in blockages(sessions, longer_than_s=_BLOCKED_ALARM_S)][:_LISTED]
    hidden = sorted({one.role for one in sessions if not one.state and one.role in BOUNDS})
    if hidden:
        sentences.append(
            f"Sessions of {', '.join(hidden)} cannot be seen; run `apply_database_roles`."
        )
    with connection.cursor() as cursor:
        cursor.execute(_PREPARED)
        sentences += [
            f"{owner} left a prepared transaction, {gid[:80]!r}, which keeps its locks: roll it"
            " back, and set max_prepared_transactions to 0."
            for gid, owner in cursor.fetchall()
        ]
    return " ".join(sentences)


def register_alarms() -> None:
    """Add the alarms of database sessions to those of the audit log."""
    alarms_add(
        Alarm("database_sessions_ended", "Database sessions were ended", sessions_ended, True),
        Alarm("database_blocked", "A database session holds up others", sessions_block, True),
    )
