"""Memory and processor time of an installation that does nothing, with no model loaded.

The subject is everything that `./demo` starts. Memory is PSS: a page that several processes share
counts in parts. Measured once the workers have tested their tasks; without `--quick` for an hour,
because memory has to stay flat.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.stack import demo_stack

WINDOW_S = 60.0
# An hour; with `--quick`, one window.
WINDOWS = 60
GOAL_MB, GOAL_PERCENT = 1500, 3.0
SELF_TEST = "workers.offers.self_test"
# In the arguments of a process that belongs to no part but one of these.
MARKS = {
    "valkey-server": "valkey",
    "registry.sandbox.enter": "readers of media",
    "uvicorn": "mlflow",
    "postgres": "postgresql",
    "assay.server": "web",
    "run_controller": "controller",
    "workers.celery_tasks.jobs": "compute worker",
    "workers.celery_tasks.inference": "engine worker",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """PSS in MB and processor time in seconds, by part, and the number of processes."""

    memory: Counter[str]
    seconds: dict[tuple[int, str], float]
    processes: int


def run(*, quick: bool = False) -> bool:
    """Start a separate stack, measure, print, and stop it; return true if the goals are met."""
    with demo_stack() as stage:
        _wait_for_self_tests(stage.folder)
        first = before = _read(stage.folder)
        for window in range(1, 1 + (1 if quick else WINDOWS)):
            time.sleep(WINDOW_S)
            after = _read(stage.folder)
            if window in {1, WINDOWS}:
                _show(window, first, before, after)
            before = after
        percent = _percent(first, after, window)
        return after.memory.total() <= GOAL_MB and percent.total() <= GOAL_PERCENT


def _wait_for_self_tests(folder: Path) -> None:
    quiet = 0
    while quiet < 5:
        time.sleep(2)
        running = any(SELF_TEST in each.cmdline() for each, _part in _processes(folder))
        quiet = 0 if running else quiet + 1


def _processes(folder: Path) -> Iterator[tuple[psutil.Process, str]]:
    """Yield the processes of the stack with their parts, children after their parents."""
    own = psutil.Process()
    roots = [each for each in psutil.process_iter() if _mentions(each, str(folder))]
    parts: dict[int, str] = {}
    for process in [*roots, *own.children(recursive=True)]:
        for each in [process, *_children(process)]:
            try:
                line, parent = " ".join(each.cmdline()), each.ppid()
            except psutil.Error:
                continue
            part = next((part for mark, part in MARKS.items() if mark in line), "")
            part = parts.get(parent) or part or "other"
            if each.pid not in parts and each.pid != own.pid:
                parts[each.pid] = part
                yield each, part


def _mentions(process: psutil.Process, folder: str) -> bool:
    try:
        return any(folder in argument for argument in process.cmdline())
    except psutil.Error:
        return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def _read(folder: Path) -> Reading:
    memory: Counter[str] = Counter()
    seconds: dict[tuple[int, str], float] = {}
    for process, part in _processes(folder):
        try:
            memory[part] += round(process.memory_full_info().pss / 1e6)
            times = process.cpu_times()
        except psutil.Error:
            continue
        seconds[process.pid, part] = times.user + times.system
    return Reading(memory, seconds, len(seconds))


def _percent(before: Reading, after: Reading, windows: int = 1) -> Counter[str]:
    """Return the share of a core by part, in percent."""
    share: Counter[str] = Counter()
    for key, seconds in after.seconds.items():
        used = seconds - before.seconds.get(key, 0.0)
        share[key[1]] += 100 * used / (windows * WINDOW_S)  # type: ignore[assignment]
    return share


def _show(window: int, first: Reading, before: Reading, after: Reading) -> None:
    table = Table(title=f"{after.processes} processes, minute {window}")
    for column in ("part", "MB", "since the start", "% of a core"):
        table.add_column(column, justify="left" if column == "part" else "right")
    share = _percent(before, after)
    for part, memory in after.memory.most_common():
        grown = memory - first.memory[part]
        table.add_row(part, f"{memory:,}", f"{grown:+,}", f"{share[part]:.1f}")
    total = after.memory.total()
    table.add_row("all", f"{total:,}", f"{total - first.memory.total():+,}", f"{share.total():.1f}")
    table.add_row("goal", f"{GOAL_MB:,}", "+0", f"{GOAL_PERCENT:.1f}")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(not run(quick="--quick" in sys.argv))
