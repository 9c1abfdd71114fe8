"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

# Only a failure waits this long, and a busy machine needs it.
PATIENCE_S = 240.0


def wait_until(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Return once `condition` holds; fail if it does not within `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    pause_s = 0.005
    while not condition():
        assert time.monotonic() < deadline, "The condition was not met in time."
        time.sleep(pause_s)
        # A long wait must not take the processor from the processes that it waits for.
        pause_s = min(1.5 * pause_s, 0.05)
