"""A controller's part in the election of a leader."""

from __future__ import annotations

import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable
from os import getpid

from django.db import Error, connections

from workers.leadership.lease import (
    LEASE_S,
    ROUND_S,
    Term,
    earlier_sessions_end,
    lead,
    process_ended,
    process_seen,
    processes_forget,
    under,
)
from workers.measurements.loops import LoopTimes

logger = logging.getLogger(__name__)
LOOP = "leadership"


class Election:
    """Reports this controller, and holds the leader's lease if no other one does.

    `run` belongs to one thread; `led` may run in any number of others.
    """

    def __init__(self) -> None:
        self.name = f"{socket.gethostname()[:80]}:{getpid()}:{secrets.token_hex(4)}"
        self._term: Term | None = None
        self._changed = threading.Condition()
        self._closed = False

    def run(self, times: LoopTimes, stop: threading.Event) -> None:
        """Report and stand for election every 2 s until `stop`. Keep the connection, since there
        may be no room for another one.
        """
        processes_forget()
        while not stop.is_set():
            try:
                with times.round(LOOP, ROUND_S):
                    self.round()
            except Error as error:
                logger.error("This controller could not report: %s", error)
                connections.close_all()
            stop.wait(ROUND_S)

    def round(self) -> None:
        """Report once, and take or renew the lease.

        Raises:
            django.db.Error: the database does not answer, or sessions of an earlier leader do not
                end. A term that began before ends by itself.
        """
        # Read the clock before the request, so that no term lasts longer than its lease.
        until = time.monotonic() + LEASE_S
        process_seen(self.name)
        epoch = lead(self.name)
        if epoch is None:
            self._set(None)
        elif not self._extended(epoch, until):
            ended = earlier_sessions_end(epoch)
            processes_forget()
            self._set(Term(epoch, until))
            logger.warning(
                "This controller, %s, leads (epoch %d) and ended %d sessions of earlier leaders",
                self.name,
                epoch,
                ended,
            )

    def led(self, run: Callable[[threading.Event], None]) -> None:
        """Call `run` with each term of this process, one after another, until `close`."""
        while (term := self._next_term()) is not None:
            under(term.epoch)
            run(term)

    def close(self) -> None:
        """End the term and all waits for one. Loops that still run end after their step."""
        with self._changed:
            self._closed = True
        self._set(None)

    def resign(self) -> None:
        """Give up the lease, once every loop has ended."""
        try:
            process_ended(self.name)
        except Error as error:
            logger.warning("The lease was not given up; it ends by itself: %s", error)

    def _next_term(self) -> Term | None:
        with self._changed:
            while not self._closed:
                if self._term is not None and not self._term.is_set():
                    return self._term
                self._changed.wait()
        return None

    def _extended(self, epoch: int, until: float) -> bool:
        """Extend the term if it is of `epoch` and has not ended; return whether it was."""
        with self._changed:
            if self._term is None or self._term.epoch != epoch or self._term.is_set():
                return False
            self._term.until = until
            # A loop may have found it ended just before.
            self._changed.notify_all()
            return True

    def _set(self, term: Term | None) -> None:
        with self._changed:
            if self._term is not None:
                if term is None and not self._closed:
                    logger.warning("This controller, %s, does not lead any more", self.name)
                self._term.set()
            self._term = None if self._closed else term
            self._changed.notify_all()
