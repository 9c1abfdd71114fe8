"""Durations of requests that are not written to the process's metrics yet."""

from __future__ import annotations

import time
from bisect import bisect_left

from prometheus_client import Histogram

from assay.gateway.monitoring.metrics import INTER_TOKEN, bound, bounds_of


class Times:
    """Durations in seconds that are not written yet, by bucket."""

    __slots__ = ("_bounds", "_metric", "counts", "total")

    def __init__(self, metric: Histogram) -> None:
        self._metric, self._bounds = metric, bounds_of(metric)
        self.counts = [0] * len(self._bounds)
        self.total = 0.0

    def add(self, seconds: float, count: int = 1) -> int:
        """Count a duration `count` times; return the number of its bucket."""
        bucket = bisect_left(self._bounds, seconds)
        self.counts[bucket] += count
        self.total += seconds * count
        return bucket

    def join(self, other: Times) -> None:
        """Add the durations of `other`."""
        for bucket, count in enumerate(other.counts):
            self.counts[bucket] += count
        self.total += other.total

    def write(self, *labels: str) -> None:
        """Write the durations to the series with these labels, and forget them."""
        if not any(self.counts):
            return
        series = bound(self._metric, *labels)
        for bucket, count in enumerate(self.counts):
            if count:
                series._buckets[bucket].inc(count)
        series._sum.inc(self.total)
        self.counts, self.total = [0] * len(self._bounds), 0.0


class TokenGaps:
    """Times between the tokens of one streamed answer, as they reach the gateway.

    A piece with several tokens counts as that many equal gaps.
    """

    __slots__ = ("_last", "times")

    def __init__(self) -> None:
        self._last: dict[int, float] = {}
        self.times = Times(INTER_TOKEN)

    def arrived(self, choice: int, tokens: int) -> None:
        """Record the arrival of some tokens of a choice; the first ones have no gap."""
        if not tokens:
            return
        now = time.perf_counter()
        before = self._last.get(choice)
        self._last[choice] = now
        if before is not None:
            self.times.add((now - before) / tokens, tokens)
