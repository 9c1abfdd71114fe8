"""Exemplars: traces of requests, by the bucket of a histogram that they fell into.

prometheus_client keeps exemplars only within one process: its multiprocess mode drops them. So each
process writes its latest ones to a file of its own next to its counts, and a scrape in the format
of OpenMetrics adds the newest of all processes to the buckets.
"""

from __future__ import annotations

import glob
import json
import os
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from prometheus_client import Histogram
from prometheus_client.core import Exemplar, Metric, Sample
from prometheus_client.utils import floatToGoString

# Set by `assay.server` before prometheus_client is imported, which reads it on import.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
# Exemplars that one process keeps; the oldest are dropped.
MOST = 2_000
EVERY_S = 5.0


class Place(NamedTuple):
    """A bucket of one series. `bound` is written as in the label `le`."""

    metric: str
    deployment: str
    endpoint: str
    bound: str


class Kept(NamedTuple):
    """A request in a bucket: its trace, its duration, and its end in seconds since the epoch."""

    trace: str
    seconds: float
    at: float


class Exemplars:
    """The exemplars of this process."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Place, Kept] = OrderedDict()
        self._changed = False
        self._written_at = float("-inf")

    def keep(
        self, metric: Histogram, labels: tuple[str, str], bucket: int, trace: str, seconds: float
    ) -> None:
        """Store a request as the exemplar of its bucket."""
        place = Place(metric._name, *labels, floatToGoString(metric._upper_bounds[bucket]))
        self._kept[place] = Kept(trace, seconds, time.time())
        self._kept.move_to_end(place)
        if len(self._kept) > MOST:
            self._kept.popitem(last=False)
        self._changed = True

    def write(self) -> bool:
        """Write changes to the process's file, at most every few seconds; return whether some are
        left to be written."""
        folder = os.environ.get(FOLDER)
        if folder is None or not self._changed:
            return False
        if time.monotonic() - self._written_at < EVERY_S:
            return True
        file = Path(folder) / f"exemplars_{os.getpid()}.json"
        scratch = file.with_suffix(".new")
        scratch.write_text(json.dumps(list(self._kept.items())), encoding="utf-8")
        scratch.replace(file)
        self._changed, self._written_at = False, time.monotonic()
        return False

    def together(self) -> dict[Place, Kept]:
        """Return the newest exemplar of each bucket, of all processes."""
        folder = os.environ.get(FOLDER)
        if folder is None:
            return dict(self._kept)
        newest: dict[Place, Kept] = {}
        for file in glob.glob(os.path.join(glob.escape(folder), "exemplars_*.json")):
            with suppress(FileNotFoundError):  # Its process has just ended.
                for place, kept in json.loads(Path(file).read_text(encoding="utf-8")):
                    place, kept = Place(*place), Kept(*kept)
                    if place not in newest or newest[place].at < kept.at:
                        newest[place] = kept
        return newest


EXEMPLARS = Exemplars()


def with_exemplars(families: Iterator[Metric]) -> Iterator[Metric]:
    """Yield the metrics with an exemplar in each bucket that has one."""
    kept = EXEMPLARS.together()
    for family in families:
        if family.type == "histogram" and kept:
            family.samples = [_with_exemplar(family.name, each, kept) for each in family.samples]
        yield family


def _with_exemplar(metric: str, sample: Sample, kept: dict[Place, Kept]) -> Sample:
    labels = sample.labels
    place = Place(metric, labels.get("deployment", ""), labels.get("endpoint", ""), "")
    exemplar = kept.get(place._replace(bound=labels.get("le", "")))
    if exemplar is None:
        return sample
    return sample._replace(
        exemplar=Exemplar({"trace_id": exemplar.trace}, exemplar.seconds, exemplar.at)
    )
