"""Durations of tests, stored in `.cache/tests`, so that the longest files start first.

A long file that starts last would keep one core busy while the others wait. A new clone has no
durations.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.worlds import commits

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / ".cache" / "tests" / "durations.json"
# Most tests take less; their order does not matter.
LONG_S = 1.0
_seconds: Counter[str] = Counter()


def longest_first(items: list[pytest.Item]) -> None:
    """Sort tests by the total seconds of their file, longest first.

    Keeps the order within a file, and tests that commit after all others, which may share rows
    (`tests/worlds.py`).
    """
    of_file: Counter[str] = Counter()
    for nodeid, seconds in _read().items():
        of_file[nodeid.partition("::")[0]] += seconds
    items.sort(key=lambda item: (commits(item), -of_file[item.nodeid.partition("::")[0]]))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _seconds[report.nodeid] += report.duration


def pytest_sessionfinish() -> None:
    """Store this run's durations. Parallel workers report theirs to the main process."""
    if "PYTEST_XDIST_WORKER" in os.environ or not _seconds:
        return
    kept = {name: each for name, each in _read().items() if name not in _seconds}
    kept |= {name: round(each, 1) for name, each in _seconds.items() if each >= LONG_S}
    present = {name: each for name, each in kept.items() if (ROOT / name.split("::")[0]).is_file()}
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    partial = KEPT.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(present, indent=0, sort_keys=True))
    partial.rename(KEPT)


def _read() -> dict[str, float]:
    try:
        durations: dict[str, float] = json.loads(KEPT.read_text())
    except (OSError, ValueError):
        return {}
    return durations
