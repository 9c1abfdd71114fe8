"""Metrics of the web process as its unit starts it: several processes behind one port."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from assay.gateway.monitoring.exposition import _MOST_FILES
from tests.live.celery_worker import descendants
from tests.live.web_process import shipped_options, web
from tests.unit.assay.gateway_support import Stage, stage
from tests.waiting import PATIENCE_S, wait_until

__all__ = ["stage"]

pytestmark = pytest.mark.live
TOKEN = "a token of Prometheus, of forty characters"
REQUESTS = "assay_gateway_requests_total"
COUNT = "assay_gateway_request_duration_seconds_count"
INFLIGHT = "assay_gateway_inflight_requests"

Sample = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Scraper:
    """Scrapes as Prometheus does: each time by whichever process takes the connection."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.samples: list[Sample] = []

    def scrape(self) -> Sample:
        answer = httpx.get(
            f"{self.url}/metrics", headers={"authorization": f"Bearer {TOKEN}"}, timeout=30
        )
        assert answer.status_code == 200, answer.text
        found: Sample = {}
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in found, f"{key} is exposed twice"
                assert "pid" not in sample.labels, key
                found[key] = sample.value
        self.samples.append(found)
        return found

    def increase(self, name: str) -> float:
        """`sum(increase(name))` over all scrapes, which takes a smaller value for a restart."""
        series = {key for sample in self.samples for key in sample if key[0] == name}
        return sum(_increase(sample.get(key) for sample in self.samples) for key in series)


def wait_for_counts(scraper: Scraper, expected: int) -> None:
    """Scrape until all requests are counted, which happens after their answers are sent."""

    def counted() -> bool:
        scraper.scrape()
        return scraper.increase(REQUESTS) == scraper.increase(COUNT) == expected

    wait_until(counted)


def _increase(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(new - old if new >= old else new for old, new in pairwise(known))


def processes(pid: int) -> list[int]:
    """The processes that serve: those that have the files of their counts open."""
    found = []
    for child in descendants(pid):
        try:
            maps = Path(f"/proc/{child}/maps").read_text()
        except OSError:
            continue
        if "assay-metrics-" in maps:
            found.append(child)
    return found


def folder_of(pid: int) -> Path:
    line = next(
        x for x in Path(f"/proc/{pid}/maps").read_text().splitlines() if "assay-metrics-" in x
    )
    return Path(line.split()[-1]).parent


@pytest.fixture
def server(stage: Stage, tmp_path: Path) -> Iterator[tuple[str, int]]:
    """The web process with the options and the environment of its unit; its address and ID."""
    assert "--workers" in shipped_options()
    with web(tmp_path, *shipped_options(), ASSAY_METRICS_TOKEN=TOKEN) as (url, started):
        wait_until(lambda: len(processes(started.pid)) == int(shipped_options()[-1]))
        yield url, started.pid


def test_an_increase_is_the_number_of_requests(server: tuple[str, int], stage: Stage) -> None:
    url, pid = server
    bearer = {"authorization": f"Bearer {stage.key()}"}

    def ask(_: int) -> int:
        return httpx.get(f"{url}/v1/models", headers=bearer, timeout=60).status_code

    ask(0)
    wait_until(lambda: _total(Scraper(url).scrape()) >= 1)
    scraper = Scraper(url)
    scraper.scrape()
    with ThreadPoolExecutor(4) as pool:
        for _ in range(6):
            assert set(pool.map(ask, range(5))) == {200}
            scraper.scrape()
    wait_for_counts(scraper, 30)
    for _ in range(20):  # Whoever answers, the counts are the same.
        scraper.scrape()
    assert scraper.increase(REQUESTS) == scraper.increase(COUNT) == 30
    # Gauges of the database and the broker are there once, and of processes are added up.
    assert scraper.samples[-1][(INFLIGHT, frozenset())] == 0
    ages = [sample[("assay_controller_report_age_seconds", frozenset())]
            for sample in scraper.samples
            if ("assay_controller_report_age_seconds", frozenset()) in sample]  # fmt: skip
    assert all(age >= 0 for age in ages)

    for number in range(3):  # uvicorn replaces a process that was killed.
        before = processes(pid)
        os.kill(before[0], signal.SIGKILL)
        wait_until(lambda before=before: len(set(processes(pid)) - set(before[:1])) == 2)  # type: ignore[misc]
        ask(0)
        wait_for_counts(scraper, 31 + number)
    values = [sum(value for key, value in sample.items() if key[0] == REQUESTS)
              for sample in scraper.samples]  # fmt: skip
    assert values == sorted(values), "a counter went down"
    assert scraper.increase(REQUESTS) == 33
    assert scraper.samples[-1][(INFLIGHT, frozenset())] == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_folder_goes_with_the_processes(stage: Stage, tmp_path: Path, workers: str) -> None:
    with web(tmp_path, "--workers", workers, TMPDIR=str(tmp_path)) as (url, started):
        assert httpx.get(f"{url}/v1/models", timeout=60).status_code == 401
        (folder,) = tmp_path.glob("assay-metrics-*")
        started.terminate()
        assert started.wait(PATIENCE_S) == 0
        assert not folder.exists()


def test_the_folder_is_private_and_files_of_the_dead_become_one(
    server: tuple[str, int], stage: Stage
) -> None:
    url, pid = server
    folder = folder_of(processes(pid)[0])
    assert folder.stat().st_mode & 0o777 == 0o700
    assert httpx.get(f"{url}/v1/models").status_code == 401
    scraper = Scraper(url)
    # Requests are counted after their answers are sent.
    wait_until(lambda: _total(scraper.scrape()) >= 1)
    before = scraper.samples[-1]
    (file,) = list(folder.glob(f"counter_{_counting(folder)}.db"))[:1]
    # As after many restarts: numbers that no process has.
    dead = range(2**22 + 1, 2**22 + 2 + _MOST_FILES)
    for number in dead:
        (folder / f"counter_{number}.db").write_bytes(file.read_bytes())
        (folder / f"gauge_livesum_{number}.db").write_bytes(
            next(folder.glob("gauge_livesum_*.db")).read_bytes()
        )
    own = sum(value for key, value in _values(file).items() if REQUESTS in key)
    after = scraper.scrape()
    assert _total(after) == _total(before) + own * len(dead)
    assert after[(INFLIGHT, frozenset())] == 0
    assert len(list(folder.glob("counter_*.db"))) <= 3
    assert len(list(folder.glob("gauge_*.db"))) <= 4
    for _ in range(6):
        assert _total(scraper.scrape()) == _total(after)
    assert httpx.get(f"{url}/v1/models").status_code == 401
    wait_until(lambda: _total(scraper.scrape()) == _total(after) + 1)


def _total(sample: Sample) -> float:
    return sum(value for key, value in sample.items() if key[0] == REQUESTS)


def _values(file: Path) -> dict[str, float]:
    from prometheus_client.mmap_dict import MmapedDict

    return {key: value for key, value, _, _ in MmapedDict.read_all_values_from_file(str(file))}


def _counting(folder: Path) -> str:
    """The process that has counted a request."""
    for file in folder.glob("counter_*.db"):
        if any(REQUESTS in key and value for key, value in _values(file).items()):
            return file.stem.removeprefix("counter_")
    raise AssertionError("no process counted")
