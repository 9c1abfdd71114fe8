"""Limits of memory for the processes of one run: real processes that allocate."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.waiting import PATIENCE_S
from workers.launchers import memory
from workers.launchers.memory import GIB, Group, Limit, Watch, delegated_group

MIB = 1024**2
LIMIT = Limit(256 * MIB, requested=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_WATCH_S", 0.02)


@contextmanager
def started(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process in a session of its own, which has printed a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in psutil.Process(process.pid).children(recursive=True):
                each.kill()
        process.kill()
        process.wait()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


# As torchrun does: each process that it starts has a session of its own.
HELPER = """
import subprocess, sys, time
code = "import time; held = b'x' * (400 * 1024**2); time.sleep(600)"
print(subprocess.Popen([sys.executable, "-c", code], start_new_session=True).pid, flush=True)
time.sleep(600)
"""


def test_memory_of_a_process_that_the_run_started_counts_and_all_are_killed() -> None:
    with started(HELPER) as process:
        helper = psutil.Process(int(line(process)))
        watch = Watch(psutil.Process(process.pid), LIMIT)
        assert process.wait(PATIENCE_S) == -9
        watch.close()
        assert re.match(r"The run used 0\.[34] GiB of memory; its limit", watch.excess())
        helper.wait(PATIENCE_S)


# 150 MiB that four processes share, and a file of 400 MiB that is mapped and read.
SHARED = """
import mmap, os, sys, time
held = bytearray(b"x" * (150 * 1024**2))
for _ in range(3):
    if os.fork() == 0:
        time.sleep(600)
file = open(sys.argv[1], "rb")
mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
assert sum(mapped[::4096]) == 0
print("ready", flush=True)
time.sleep(600)
"""


def test_shared_memory_counts_once_and_files_do_not_count(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    with file.open("wb") as written:
        written.truncate(400 * MIB)
    with started(SHARED, str(file)) as process:
        assert line(process) == "ready"
        first = psutil.Process(process.pid)
        assert first.memory_info().rss > 2 * LIMIT.size
        watch = Watch(first, LIMIT)
        time.sleep(0.5)
        watch.close()
        assert (watch.excess(), process.poll()) == ("", None)


# Root sees the memory of all processes until its capabilities are gone.
HIDDEN = """
import ctypes, subprocess, sys
import psutil
from workers.engines.servers.launch import drop_capabilities
from workers.launchers.memory import Limit, Watch
drop_capabilities()
code = "import ctypes, time; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); held = b'x' * (400 << 20); "
process = subprocess.Popen([sys.executable, "-c", code + "time.sleep(20)"])
watch = Watch(psutil.Process(process.pid), Limit(256 << 20, requested=True))
print(process.wait(), watch.excess(), flush=True)
"""


def test_memory_of_a_process_that_hides_it_counts() -> None:
    with started(HIDDEN) as process:
        assert line(process).startswith("-9 The run used 0.")


def test_a_default_limit_says_so() -> None:
    assert Limit(2 * GIB, requested=False).sentence(3 * GIB) == (
        "The run used 3.0 GiB of memory; its limit is 2.0 GiB, the default of this machine. "
        "Request more memory (memory_gib), or use a smaller batch."
    )


@pytest.mark.skipif(delegated_group() is None, reason="no control group was delegated to the tests")
def test_the_kernel_ends_all_processes_of_a_group_above_its_limit() -> None:
    groups = delegated_group()
    assert groups is not None
    group = Group(groups, "run-test", LIMIT)
    enter = f"open({str(group.path / 'cgroup.procs')!r}, 'w').write('0')\n"
    with started(enter + HELPER) as process:
        helper = psutil.Process(int(line(process)))
        assert process.wait(PATIENCE_S) == -9
        helper.wait(PATIENCE_S)
    assert group.excess() == LIMIT.sentence(LIMIT.size)
    group.close()
    assert not group.path.exists()
