"""Pace at which deployments answer the requests of this process.

With it, the gateway refuses a request at once if the deployment cannot answer it in time. Requests
of all processes share a deployment's queue and engines equally, so the pace of this process and the
number of its running requests suffice for the estimate. Departments take turns in the queue, so a
request waits for those of its own department, and for as many of each other one as their weights
give it turns.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

# Number of answers before the first estimate, and weight of each further answer in the average.
LEAST, WEIGHT = 20, 0.1
KNOWN_MAX = 4096


@dataclass(slots=True)
class _Pace:
    running: Counter[str] = field(default_factory=Counter)
    last_at: float = 0.0
    interval_s: float = 0.0
    answers: int = 0


class Paces:
    """Paces by the ID of the deployment."""

    def __init__(self) -> None:
        self._by_id: dict[int, _Pace] = {}

    def begin(self, deployment_id: int, department: str) -> None:
        """Note that a request is sent."""
        if len(self._by_id) >= KNOWN_MAX:
            self._by_id = {pk: pace for pk, pace in self._by_id.items() if pace.running}
        pace = self._by_id.setdefault(deployment_id, _Pace())
        if not pace.running:
            pace.last_at = time.monotonic()  # Idle time says nothing about the pace.
        pace.running[department] += 1

    def end(self, deployment_id: int, department: str, *, answered: bool) -> None:
        """Note that a request has ended."""
        pace = self._by_id.get(deployment_id)
        if pace is None:
            return
        pace.running[department] -= 1
        if pace.running[department] <= 0:
            del pace.running[department]
        if answered:
            now = time.monotonic()
            interval, pace.last_at = now - pace.last_at, now
            weight = max(WEIGHT, 1 / (pace.answers + 1))
            pace.interval_s += weight * (interval - pace.interval_s)
            pace.answers += 1

    def expected_s(
        self, deployment_id: int, department: str, weights: Mapping[str, int] | None = None
    ) -> float:
        """Return the time until all running requests of a department are answered; 0 if it is not
        known. `weights` are those of departments in the queue, 1 for others."""
        pace = self._by_id.get(deployment_id)
        if pace is None or pace.answers < LEAST:
            return 0.0
        weight_of = weights or {}
        all_weights = sum(weight_of.get(name, 1) for name in pace.running)
        turns = pace.running[department] * all_weights / weight_of.get(department, 1)
        return min(pace.running.total(), turns) * pace.interval_s
