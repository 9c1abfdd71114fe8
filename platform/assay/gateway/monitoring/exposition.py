"""The metrics of all web processes, which Prometheus may scrape from any of them.

Each process counts in its own files in one private folder (prometheus_client's multiprocess mode),
and a scrape adds them up. Figures of stores and other processes are read at the scrape by the
process that answers it (`Reading`).
"""

from __future__ import annotations

import fcntl
import glob
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from assay.gateway.monitoring.exemplars import FOLDER, with_exemplars

# Name that deployments without a series of their own share (`tallies`); no deployment's name.
OTHER = "(other)"
# Files of ended processes; more are merged into one.
_MOST_FILES = 32
_ADDED = ("counter", "histogram")
READINGS = CollectorRegistry()


class Reading:
    """A gauge, or with `total` a counter, that is read at a scrape and belongs to no process.

    It has the methods of prometheus_client's Gauge, but no files: those would add an old reading of
    one process to a new reading of another.
    """

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str] = (), *, total: bool = False
    ) -> None:
        self.name, self.label_names, self.is_total = name, tuple(labels), total
        self._documentation = documentation
        self._values: dict[tuple[str, ...], float] = {}
        READINGS.register(self)

    def labels(self, *values: str) -> _Labeled:
        """Return an object whose `set` sets the value for these labels."""
        return _Labeled(self._values, tuple(map(str, values)))

    def set(self, value: float) -> None:
        self._values[()] = float(value)

    def clear(self) -> None:
        self._values.clear()

    def collect(self) -> Iterator[Metric]:
        kind = CounterMetricFamily if self.is_total else GaugeMetricFamily
        family = kind(self.name, self._documentation, labels=self.label_names)
        # A copy, because a scrape may run in another thread.
        for values, value in list(self._values.items()):
            family.add_metric(values, value)
        yield family


class _Labeled:
    def __init__(self, values: dict[tuple[str, ...], float], key: tuple[str, ...]) -> None:
        self._values, self._key = values, key

    def set(self, value: float) -> None:
        self._values[self._key] = float(value)


def exposition(accept: str = "", live: Collection[str] | None = None) -> tuple[bytes, str]:
    """Return the metrics of all processes, and readings by this one, with their content type.

    `accept` is the header of the scrape: exemplars exist only in the format of OpenMetrics. Series
    of deployments that are not in `live` are left out, with None none are. Blocks for milliseconds.
    """
    encode, content_type = choose_encoder(accept)
    return encode(_Together(live)), content_type


class _Together:
    """Everything that a scrape shows, as a registry for prometheus_client's encoders."""

    def __init__(self, live: Collection[str] | None) -> None:
        self._live = live

    def collect(self) -> Iterator[Metric]:
        yield from with_exemplars(_of_live(_counts(), self._live))
        yield from READINGS.collect()


def _of_live(families: Iterable[Metric], live: Collection[str] | None) -> Iterator[Metric]:
    """Yield the metrics without series of deployments that have ended, whose values stay in the
    files of processes."""
    shown = None if live is None else {*live, "", OTHER}
    for family in families:
        if shown is not None:
            family.samples = [
                each for each in family.samples if each.labels.get("deployment", "") in shown
            ]
        yield family


def _counts() -> list[Metric]:
    folder = os.environ.get(FOLDER)
    if folder is None:
        return list(REGISTRY.collect())
    with (Path(folder) / "lock").open("a") as lock:
        # Concurrent scrapes of two processes must not tidy up twice.
        fcntl.flock(lock, fcntl.LOCK_EX)
        _tidy(folder)
        return list(MultiProcessCollector(CollectorRegistry(), folder).collect())


def _tidy(folder: str) -> None:
    """Remove live gauges of ended processes, and merge their counters into few files."""
    ended: defaultdict[str, list[str]] = defaultdict(list)
    for file in glob.glob(os.path.join(folder, "*_*.db")):
        kind, *_, number = Path(file).stem.split("_")
        if not _runs(int(number)):
            mark_process_dead(int(number), folder)
            ended[kind].append(file)
    for file in glob.glob(os.path.join(folder, "exemplars_*.json")):
        if not _runs(int(Path(file).stem.rpartition("_")[2])):
            Path(file).unlink(missing_ok=True)
    for kind in _ADDED:
        if len(ended[kind]) > _MOST_FILES:
            _merge(ended[kind], os.path.join(folder, f"{kind}_0.db"))


def _runs(pid: int) -> bool:
    # The merged file of ended processes has the number 0.
    return pid > 0 and Path(f"/proc/{pid}").exists()


def _merge(files: list[str], into: str) -> None:
    """Add up the values of `files` in the file `into`."""
    sums: defaultdict[str, float] = defaultdict(float)
    for file in files:
        for key, value, _, _ in MmapedDict.read_all_values_from_file(file):
            sums[key] += value
    scratch = f"{into}.new"
    Path(scratch).unlink(missing_ok=True)
    merged = MmapedDict(scratch)
    for key, value in sums.items():
        merged.write_value(key, value, 0.0)
    merged.close()
    for file in files:
        os.unlink(file)
    os.replace(scratch, into)
