"""Pace at which deployments answer the requests of this process.

With it, the gateway refuses a request at once if the deployment cannot answer it in time. Requests
of all processes share a deployment's queue and engines equally, so the pace of this process and the
number of its running requests suffice for the estimate.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

# Answers before there is an estimate, and the weight of each further one in it.
LEAST, WEIGHT = 20, 0.1
KNOWN_MAX = 4096


@dataclass(slots=True)
class _Pace:
    running: int = 0
    last_at: float = 0.0
    interval_s: float = 0.0
    answers: int = 0


class Paces:
    """Paces by the ID of the deployment."""

    def __init__(self) -> None:
        self._by_id: dict[int, _Pace] = {}

    def begin(self, deployment_id: int) -> None:
        """Note that a request is sent."""
        if len(self._by_id) >= KNOWN_MAX:
            self._by_id = {pk: pace for pk, pace in self._by_id.items() if pace.running}
        pace = self._by_id.setdefault(deployment_id, _Pace())
        if not pace.running:
            pace.last_at = time.monotonic()  # Idle time says nothing about the pace.
        pace.running += 1

    def end(self, deployment_id: int, *, answered: bool) -> None:
        """Note that a request has ended."""
        pace = self._by_id.get(deployment_id)
        if pace is None:
            return
        pace.running = max(0, pace.running - 1)
        if answered:
            now = time.monotonic()
            interval, pace.last_at = now - pace.last_at, now
            weight = max(WEIGHT, 1 / (pace.answers + 1))
            pace.interval_s += weight * (interval - pace.interval_s)
            pace.answers += 1

    def expected_s(self, deployment_id: int) -> float:
        """Return the time until all running requests are answered; 0 if it is not known."""
        pace = self._by_id.get(deployment_id)
        if pace is None or pace.answers < LEAST:
            return 0.0
        return pace.running * pace.interval_s
