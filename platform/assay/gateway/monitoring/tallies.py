"""Counts of requests by deployment and endpoint, which are written once a second.

prometheus_client writes each value of a histogram to a file of the process, in about 5 µs. A
request has five durations and each of its tokens one more, so they are added up in memory first.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Counts
from itertools import islice

from prometheus_client import Histogram

from assay.gateway.access.call import Call
from assay.gateway.monitoring.exemplars import EXEMPLARS
from assay.gateway.monitoring.exposition import OTHER
from assay.gateway.monitoring.metrics import (
    DECODE,
    DURATION,
    FIRST_TOKEN,
    INTER_TOKEN,
    PREFILL,
    QUEUE,
    REQUESTS,
    TOKENS,
    UNITS,
    bound,
)
from assay.gateway.monitoring.times import Times, TokenGaps
from governance.usage.records import UsageEntry
from governance.usage.units import Unit

EVERY_S = 1.0
# Series that are written at once, in about a millisecond, and the pause before the next ones: with
# thousands of busy deployments, counts wait longer, but the event loop does not.
AT_ONCE, PAUSE_S = 20, 0.02
# Deployments of one process that have their own series, deleted ones included; all further ones
# share the name `OTHER`. Each takes about 30 kB of memory and file for each endpoint.
DEPLOYMENTS_MAX = 2_000
_TOKENS = ("prompt", "completion")


class Series:
    """Counts of one deployment at one endpoint that are not written yet."""

    __slots__ = ("_labels", "_requests", "_times", "_units")

    def __init__(self, deployment: str, endpoint: str) -> None:
        self._labels = deployment, endpoint
        self._requests: Counts[tuple[str, str]] = Counts()
        self._units: Counts[str] = Counts()
        self._times: dict[Histogram, Times] = {}

    def request(self, outcome: str, code: int) -> None:
        """Count a request that has ended, with the HTTP status of its answer or error."""
        self._requests[outcome, str(code)] += 1

    def use(self, entry: UsageEntry) -> None:
        """Count the tokens and units of an answer."""
        self._units["prompt"] += entry.prompt_tokens
        self._units["completion"] += entry.completion_tokens
        if entry.unit != Unit.TOKENS:
            self._units[entry.unit] += entry.units

    def time(self, metric: Histogram, seconds: float, trace: str = "") -> None:
        """Count a duration, with the ID of the request's trace as its exemplar."""
        bucket = self._of(metric).add(seconds)
        if trace:
            EXEMPLARS.keep(metric, self._labels, bucket, trace, seconds)

    def gaps(self, gaps: TokenGaps) -> None:
        """Count the times between the tokens of an answer."""
        self._of(INTER_TOKEN).join(gaps.times)

    def _of(self, metric: Histogram) -> Times:
        times = self._times.get(metric)
        if times is None:
            times = self._times[metric] = Times(metric)
        return times

    def write(self) -> None:
        """Write everything to the process's metrics."""
        deployment, endpoint = self._labels
        for (outcome, code), count in self._requests.items():
            bound(REQUESTS, deployment, endpoint, outcome, code).inc(count)
        for unit, count in self._units.items():
            if count:
                bound(TOKENS if unit in _TOKENS else UNITS, deployment, unit).inc(count)
        for times in self._times.values():
            times.write(*self._labels)
        self._requests.clear()
        self._units.clear()


class Tally:
    """All counts of this process. Use it on one event loop."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], Series] = {}
        self._named: set[str] = set()
        self._changed: dict[tuple[str, str], Series] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def series(self, deployment: str, endpoint: str) -> Series:
        """Return the series of a deployment at an endpoint, to be changed now."""
        if deployment and deployment not in self._named:
            if len(self._named) >= DEPLOYMENTS_MAX:
                deployment = OTHER
            else:
                self._named.add(deployment)
        key = deployment, endpoint
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = Series(deployment, endpoint)
        self._changed[key] = series
        self._write_in(EVERY_S)
        return series

    def write(self) -> None:
        """Write all counts to the process's metrics."""
        while self._changed:
            self._write_some()

    def _write_in(self, seconds: float) -> None:
        """Write in so many seconds, unless that is planned already."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(seconds, self._write_planned)

    def _write_planned(self) -> None:
        self._loop = None
        self._write_some()
        if self._changed:
            self._write_in(PAUSE_S)
        elif EXEMPLARS.write():
            self._write_in(EVERY_S)

    def _write_some(self) -> None:
        for key in list(islice(self._changed, AT_ONCE)):
            self._changed.pop(key).write()


TALLY = Tally()


def record(call: Call) -> None:
    """Count a request that has ended: its outcome, its duration, and where its time went.

    Phases are counted only for complete answers, the first token and the gaps between tokens only
    for streamed ones.
    """
    deployment = "" if call.deployment is None else call.deployment.name
    series = TALLY.series(deployment, call.endpoint)
    series.request(call.outcome, call.status)
    trace = call.traceparent[3:35]
    series.time(DURATION, time.perf_counter() - call.started, trace)
    done = call.done
    if call.outcome != "ok" or done is None:
        return
    series.time(QUEUE, done.queue_ms / 1000, trace)
    if done.completion_tokens and done.decode_ms + done.prefill_ms:
        series.time(PREFILL, done.prefill_ms / 1000, trace)
        series.time(DECODE, done.decode_ms / 1000, trace)
    if call.first_token_ms is not None:
        series.time(FIRST_TOKEN, call.first_token_ms / 1000, trace)
    if call.gaps is not None:
        series.gaps(call.gaps)


def count_use(entry: UsageEntry) -> None:
    """Count the tokens and units of an answer."""
    TALLY.series(entry.deployment, entry.endpoint).use(entry)
