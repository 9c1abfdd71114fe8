"""Time of the control plane on a worker whose machine may have the wrong time.

Deadlines of requests are times of the gateway's clock. Leases need no clock, since they are stated
as seconds left. Every answer of the control plane has a `Date` header, which replaces this
machine's time as soon as the two differ by more than the imprecision of that header.
"""

from __future__ import annotations

import logging
import time
from email.utils import parsedate_to_datetime

logger = logging.getLogger(__name__)
# `Date` has whole seconds, and servers update it once a second.
TOLERATED_S = 3.0
# An answer that took longer is too imprecise.
LONGEST_ANSWER_S = 2.0


class Clock:
    """Time of the control plane, according to its answers. Threads may share it."""

    def __init__(self) -> None:
        # Offset of the monotonic clock, so that changes of this machine's clock have no effect.
        self._base: float | None = None
        self._ahead_s = 0.0

    def now(self) -> float:
        """Return seconds since the epoch."""
        base = self._base
        return time.time() if base is None else base + time.monotonic()

    @property
    def ahead_s(self) -> float:
        """Seconds by which this machine's clock is ahead; 0 if it is about right."""
        return self._ahead_s

    def follow(self, date: str, *, sent_at: float) -> None:
        """Use the `Date` of an answer to a request sent at `sent_at` on the monotonic clock."""
        received = time.monotonic()
        if received - sent_at > LONGEST_ANSWER_S:
            return
        try:
            remote = parsedate_to_datetime(date).timestamp() + 0.5
        except (TypeError, ValueError, OverflowError):
            return
        ahead = time.time() - remote
        wrong = abs(ahead) > TOLERATED_S
        if wrong != (self._base is not None):
            self._tell(ahead, wrong=wrong)
        self._base = remote - received if wrong else None
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


# The clock of this process.
CLOCK = Clock()
