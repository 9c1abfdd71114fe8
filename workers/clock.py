"""The control plane's time on a worker whose machine may have the wrong time.

A request states its deadline as a moment of the gateway's clock. Leases need no clock: they are
seconds that are left. Every answer of the control plane has a `Date`; what it says replaces this
machine's time as soon as the two differ by more than such an answer can explain.
"""

from __future__ import annotations

import logging
import time
from email.utils import parsedate_to_datetime

logger = logging.getLogger(__name__)
# `Date` has whole seconds, and servers make it anew once a second.
TOLERATED_S = 3.0
# An answer that took longer says too little about the present moment.
LONGEST_ANSWER_S = 2.0


class Clock:
    """The time of the control plane, as answers told it. Threads may share it."""

    def __init__(self) -> None:
        # Added to the monotonic clock, so that setting this machine's clock changes nothing.
        self._base: float | None = None
        self._ahead_s = 0.0

    def now(self) -> float:
        """Return seconds since the epoch."""
        base = self._base
        return time.time() if base is None else base + time.monotonic()

    @property
    def ahead_s(self) -> float:
        """By how many seconds this machine's clock is ahead; 0 where it is about right."""
        return self._ahead_s

    def follow(self, date: str, *, asked: float) -> None:
        """Take the time from the `Date` of an answer that was requested at `asked`, on the
        monotonic clock."""
        came = time.monotonic()
        if came - asked > LONGEST_ANSWER_S:
            return
        try:
            there = parsedate_to_datetime(date).timestamp() + 0.5
        except (TypeError, ValueError, OverflowError):
            return
        ahead = time.time() - there
        wrong = abs(ahead) > TOLERATED_S
        if wrong != (self._base is not None):
            self._tell(ahead, wrong=wrong)
        self._base = there - came if wrong else None
        self._ahead_s = round(ahead, 1) if wrong else 0.0

    def _tell(self, ahead: float, *, wrong: bool) -> None:
        if wrong:
            side = "ahead of" if ahead > 0 else "behind"
            logger.warning(
                "The clock of this machine is %.0f s %s the control plane's, whose time is used. "
                "Set it right, by NTP for example.", abs(ahead), side,
            )  # fmt: skip
        else:
            logger.info("The clock of this machine is right again")


# Of this process.
CLOCK = Clock()
