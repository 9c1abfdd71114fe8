"""Circuit breakers of targets, and the budget of retries of a deployment, in one gateway process.

A target pauses after `FAILURES` failed requests in a row, or if it requests a pause by its
`Retry-After`. After the pause, one request tries it: an answer ends the pauses, and a failure
doubles the next one. Beyond the first few, at most a tenth of the requests are retried, so that an
outage does not multiply the load.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from assay.gateway.monitoring.metrics import TARGETS_PAUSED

FAILURES = 5
# First and longest pause of a target, and the longest pause that it can request, in seconds.
PAUSE_S, PAUSE_MOST_S, REQUESTED_MOST_S = 2.0, 60.0, 600.0
# Pause after a 429 without a time, in seconds.
BUSY_S = 1.0
# After this time without a result of the request that tries a target, another one tries it.
PROBE_S = 30.0
RETRIES_SAVED, RETRIES_PER_REQUEST = 10.0, 0.1
# Maximum number of deployments in memory; beyond it, all are forgotten.
KNOWN_MAX = 4096


@dataclass(slots=True)
class _Breaker:
    failures: int = 0
    pause_s: float = 0.0
    paused_until: float = 0.0
    probed_until: float = 0.0


class Breakers:
    """State of targets by the ID of their deployment."""

    def __init__(self) -> None:
        self._by_id: dict[int, _Breaker] = {}

    def take(self, deployment_id: int) -> bool:
        """Return true if a request may be sent to the target. After a pause, this holds for one
        request, until its result or for `PROBE_S`."""
        breaker = self._by_id.get(deployment_id)
        if breaker is None or not breaker.paused_until:
            return True
        now = time.monotonic()
        if now < max(breaker.paused_until, breaker.probed_until):
            return False
        breaker.probed_until = now + PROBE_S
        return True

    def wait_s(self, deployment_id: int) -> float:
        """Return the seconds until the target may be tried again; 0 if it may be now."""
        breaker = self._by_id.get(deployment_id)
        if breaker is None or not breaker.paused_until:
            return 0.0
        return max(0.0, max(breaker.paused_until, breaker.probed_until) - time.monotonic())

    def answered(self, deployment_id: int) -> None:
        """Note that the target answered, which ends its pauses."""
        self._by_id.pop(deployment_id, None)

    def failed(
        self, deployment_id: int, name: str, *, busy: bool = False, retry_after: float | None = None
    ) -> None:
        """Note a failure. A target that is `busy` (429), or that states `retry_after`, pauses at
        once."""
        if len(self._by_id) >= KNOWN_MAX:
            self._by_id.clear()
        breaker = self._by_id.setdefault(deployment_id, _Breaker())
        breaker.failures += 1
        requested_s = min(retry_after or (BUSY_S if busy else 0.0), REQUESTED_MOST_S)
        probing = breaker.probed_until > 0.0
        if not (requested_s or probing or breaker.failures >= FAILURES):
            return
        if not requested_s:
            breaker.pause_s = min(2 * breaker.pause_s or PAUSE_S, PAUSE_MOST_S)
        until = time.monotonic() + (requested_s or breaker.pause_s)
        breaker.paused_until = max(breaker.paused_until, until)
        breaker.probed_until = 0.0
        TARGETS_PAUSED.labels(name).inc()


class RetryBudget:
    """Retries that are left, by the name of the deployment."""

    def __init__(self) -> None:
        self._left: dict[str, float] = {}

    def earn(self, name: str, retries: float = RETRIES_PER_REQUEST) -> None:
        """Note a first attempt, which permits a fraction of a retry, or give retries back."""
        if len(self._left) >= KNOWN_MAX:
            self._left.clear()
        left = self._left.get(name, RETRIES_SAVED)
        self._left[name] = min(RETRIES_SAVED, left + retries)

    def spend(self, name: str) -> bool:
        """Take one retry; return false if none is left."""
        left = self._left.get(name, RETRIES_SAVED)
        if left < 1.0:
            return False
        self._left[name] = left - 1.0
        return True
