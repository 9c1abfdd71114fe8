"""The leader's lease: taken, renewed, given up, and kept from controllers that lost it.

A controller that is frozen or cut off does not notice that its lease ends, so its word does not
count. The next leader ends every database session of earlier epochs, with its open transactions and
locks, before it begins. A session that is opened later under an earlier epoch is refused. What a
controller does after its lease therefore finds no database.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from datetime import timedelta
from typing import Any

from django.db import OperationalError, connection
from django.db.models.functions import Now

from governance.database.sessions import Session, session_end, sessions_read
from workers.leadership.models import ControllerProcess, Leadership

logger = logging.getLogger(__name__)
# Time after its last sign of life at which a controller counts as missing, and a leader's lease
# ends. With a round, far below the default `ASSAY_SERVING_LEASE_S` (30 s).
LEASE_S = 8
ROUND_S = 2.0
# A silent controller is listed for this long.
LISTED_S = 600
# PostgreSQL ends a session of a loop that every controller runs if it is silent for this long, such
# as on a paused machine: no one takes over from it, its locks would hold up the loops of others,
# and what it read before would be out of date.
HUNG_AFTER_S = 8
_ENDING_S = 5.0
_POLL_S = 0.05
_APPLICATION = "assay-controller"
_ROLE = "assay_controller"
_OF_EPOCH = re.compile(rf"{_APPLICATION}\.([0-9]+)/")
_SEEN = """
INSERT INTO workers_controllerprocess (name, started_at, seen_at) VALUES (%s, now(), now())
    ON CONFLICT (name) DO UPDATE SET seen_at = now()
"""
# `now()` is the start of the statement, so a wait for the row's lock shortens the lease.
_LEAD = """
INSERT INTO workers_leadership AS lease (id, holder, epoch, until)
VALUES (1, %(name)s, 1, now() + %(lease)s * interval '1 second')
    ON CONFLICT (id) DO UPDATE
   SET epoch = lease.epoch + (lease.holder <> excluded.holder)::int,
       holder = excluded.holder, until = excluded.until
 WHERE lease.holder = excluded.holder OR lease.until <= now()
RETURNING epoch
"""
_thread = threading.local()


class NotLeading(OperationalError):
    """The session was to be opened under an epoch that has ended."""


class Term(threading.Event):
    """The time for which this process leads. It is set once the term has ended, so that a leader's
    loops can take it for their `stop`.

    Attributes:
        epoch: The epoch of the lease.
        until: End of the lease on the monotonic clock.
    """

    def __init__(self, epoch: int, until: float) -> None:
        super().__init__()
        self.epoch = epoch
        self.until = until

    def is_set(self) -> bool:
        """Return whether the term has ended, by its clock too."""
        return super().is_set() or time.monotonic() >= self.until


def process_seen(name: str) -> None:
    """Record a sign of life of this controller."""
    with connection.cursor() as cursor:
        cursor.execute(_SEEN, [name])


def process_ended(name: str) -> None:
    """Give up this controller's lease and delete its row. No loop of a leader may run any more."""
    Leadership.objects.filter(holder=name).update(until=Now())
    ControllerProcess.objects.filter(name=name).delete()


def processes_forget() -> None:
    """Delete the rows of controllers that fell silent long ago."""
    silent = Now() - timedelta(seconds=LISTED_S)
    ControllerProcess.objects.filter(seen_at__lt=silent).delete()


def lead(name: str) -> int | None:
    """Renew the lease, or take it if it has ended; return its epoch, or None if another leads."""
    with connection.cursor() as cursor:
        cursor.execute(_LEAD, {"name": name, "lease": LEASE_S})
        row = cursor.fetchone()
    return None if row is None else int(row[0])


def earlier_sessions_end(epoch: int) -> int:
    """End all database sessions of leaders before `epoch`; return their number.

    Raises:
        OperationalError: one of them does not end.
    """
    ended: set[int] = set()
    deadline = time.monotonic() + _ENDING_S
    while stale := [each for each in sessions_read() if _is_earlier(each, epoch)]:
        for session in stale:
            if session.pid not in ended:
                logger.warning("Ending the database session of an earlier leader: %s", session)
            session_end(session)
            ended.add(session.pid)
        if time.monotonic() > deadline:
            raise OperationalError(f"Sessions of an earlier leader do not end: {stale[0]}.")
        time.sleep(_POLL_S)
    return len(ended)


def _is_earlier(session: Session, epoch: int) -> bool:
    match = _OF_EPOCH.match(session.application)
    # Without the roles of processes, as in development, no session can be ended.
    return session.role == _ROLE and match is not None and int(match[1]) < epoch


def under(epoch: int | None) -> None:
    """Open this thread's database sessions under `epoch` from now on; None: those of a loop that
    every controller runs."""
    _thread.epoch = epoch


def session_begin(connection: Any, **_: Any) -> None:
    """Name a new database session of a controller's loop, and refuse one of an ended epoch. Leave
    those of threads that never called `under`.

    Raises:
        NotLeading: another controller has taken the lease since this thread's loop began.
    """
    if not hasattr(_thread, "epoch"):
        return
    epoch: int | None = _thread.epoch
    loop = threading.current_thread().name.removeprefix("assay-")
    of_epoch = "" if epoch is None else f".{epoch}"
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('application_name', %s, false)",
            [f"{_APPLICATION}{of_epoch}/{loop}"],
        )
        if epoch is None:
            for limit in ("idle_in_transaction_session_timeout", "idle_session_timeout"):
                cursor.execute("SELECT set_config(%s, %s, false)", [limit, f"{HUNG_AFTER_S:d}s"])
            return
        # A second statement, so that a leader who takes over unseen by it sees this session's name.
        cursor.execute("SELECT epoch FROM workers_leadership")
        row = cursor.fetchone()
    if row != (epoch,):
        connection.close()
        raise NotLeading("Another controller leads now; this one's round ends.")
