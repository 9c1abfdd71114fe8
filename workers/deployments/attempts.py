"""Failed loads of one engine worker, and when each deployment may be tried again."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass

# A load that failed is tried again after this; each further failure doubles the wait.
RETRY_FIRST_S = 5.0
RETRY_LONGEST_S = 300.0
# A failure of an engine that ran for at least this long restarts the count of failures.
STEADY_S = 300.0


@dataclass(frozen=True, slots=True)
class Failures:
    """Consecutive failed loads of a deployment, and the monotonic time of the next attempt."""

    count: int
    next_try: float


class Attempts:
    """Counts failed loads by deployment."""

    def __init__(self) -> None:
        self._failures: dict[int, Failures] = {}
        self._ready_at: dict[int, float] = {}

    def may_try(self, deployment_id: int) -> bool:
        """Return whether the wait after the last failure is over."""
        failures = self._failures.get(deployment_id)
        return failures is None or time.monotonic() >= failures.next_try

    def succeeded(self, deployment_id: int) -> None:
        """Note that the deployment became ready."""
        self._ready_at[deployment_id] = time.monotonic()

    def failed(self, deployment_id: int) -> Failures:
        """Count a failure; return the count and the time of the next attempt."""
        previous = self._failures.get(deployment_id)
        ready_at = self._ready_at.pop(deployment_id, None)
        if ready_at is not None and time.monotonic() - ready_at >= STEADY_S:
            previous = None
        count = 1 if previous is None else previous.count + 1
        wait = min(RETRY_FIRST_S * 2 ** min(count - 1, 16), RETRY_LONGEST_S)
        failures = self._failures[deployment_id] = Failures(count, time.monotonic() + wait)
        return failures

    def forget(self, now: float, assigned: Collection[int]) -> None:
        """Forget failures of deployments that are no longer assigned, unless they are recent: then
        a deployment may come back, and its failures still count.
        """
        for deployment_id in self._failures.keys() - set(assigned):
            failures = self._failures.get(deployment_id)
            if failures is not None and now - failures.next_try > RETRY_LONGEST_S:
                self._failures.pop(deployment_id, None)
                self._ready_at.pop(deployment_id, None)
