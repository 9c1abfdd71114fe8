"""Runs as forked processes of this machine: how they end, and that none outlives its supervisor."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from termios import TIOCOUTQ

import psutil
import pytest

from governance.errors import Unavailable
from tests.unit.workers.test_launchers_kubernetes import Folders
from tests.unit.workers.test_run import UNREACHABLE, Recorder, delivery, order
from tests.waiting import wait_until
from workers.control.jobs import Claim
from workers.launchers.local import LocalLauncher
from workers.launchers.protocol import ProcessExit
from workers.run.order import Resources
from workers.run.outcome import Ending, outcome_read
from workers.supervision.supervisor import Supervisor

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def launcher() -> LocalLauncher:
    return LocalLauncher()


def end_of(launcher: LocalLauncher, handle: str) -> ProcessExit:
    wait_until(lambda: launcher.poll(handle) is not None)
    ended = launcher.poll(handle)
    assert ended is not None
    launcher.forget(handle)
    return ended


def waiting(folder: Path) -> Path:
    """A folder whose run waits for ever: nothing writes its order."""
    folder.mkdir()
    os.mkfifo(folder / "order.json")
    return folder


def running(folder: Path) -> bool:
    return (folder / "events.jsonl").exists()


def test_a_forked_run_writes_its_outcome_and_ends(launcher: LocalLauncher, tmp_path: Path) -> None:
    order(delivery(tmp_path / "inputs" / "delivery")).write(tmp_path)
    assert end_of(launcher, launcher.submit(tmp_path, Resources())).status == 0
    outcome = outcome_read(tmp_path)
    assert outcome is not None
    assert outcome.ending is Ending.DONE, outcome.sentence


def test_a_run_that_the_kernel_kills_is_told_from_one_that_fails(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    handle = launcher.submit(waiting(tmp_path / "run"), Resources())
    wait_until(lambda: running(tmp_path / "run"))
    os.kill(int(handle), signal.SIGKILL)
    ended = end_of(launcher, handle)
    assert (ended.killed, ended.status) == (True, -9)


def test_a_kill_ends_the_run(launcher: LocalLauncher, tmp_path: Path) -> None:
    handle = launcher.submit(waiting(tmp_path / "run"), Resources())
    wait_until(lambda: running(tmp_path / "run"))
    launcher.cancel(handle, kill=True)
    assert end_of(launcher, handle).killed


def test_a_job_whose_run_uses_too_much_memory_fails_and_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.launchers.memory._WATCH_S", 0.005)
    made, control = order(delivery(tmp_path / "delivery")), Recorder()
    claim = Claim(made.job, 1, 1, "intake", "Check", "w1", lease_s=30)
    Supervisor(control, Folders(tmp_path), LocalLauncher(2**20)).run(claim, made)
    ((kind, sentence, retry),) = control.told
    assert (kind, retry) == ("fail", False)
    assert "its limit is 0.0 GiB, the default of this machine." in sentence


def test_a_run_that_does_not_start_leaves_no_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = LocalLauncher(2**30)
    launcher._groups = tmp_path
    monkeypatch.setattr("workers.launchers.memory._REMOVE_S", 0.0)
    monkeypatch.setattr("workers.launchers.local._FORKED", "no.such.module")
    with pytest.raises(Unavailable, match="process cannot be started"):
        launcher.submit(tmp_path / "job" / "1", Resources())
    assert (tmp_path / "run-job-1" / "cgroup.kill").read_text() == "1"


def test_a_run_that_is_taken_for_dead_ends_by_itself(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    folder = waiting(tmp_path / "run")
    handle = launcher.submit(folder, Resources())
    wait_until(lambda: running(folder))
    (folder / "order.json").unlink()
    assert end_of(launcher, handle).killed


def test_an_idle_source_frees_its_memory_and_runs_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.launchers.local._FORKED", "tests.unit.workers.impatient_source")
    launcher = LocalLauncher()
    first = launcher.submit(waiting(tmp_path / "first"), Resources())
    wait_until(lambda: running(tmp_path / "first"))
    assert launcher._source is not None
    source = launcher._source[1]
    wait_until(lambda: source.poll() == 0)
    # The next run starts another source. The first run has noticed nothing.
    second = launcher.submit(waiting(tmp_path / "second"), Resources())
    wait_until(lambda: running(tmp_path / "second"))
    assert launcher.poll(first) is None
    for handle in (first, second):
        launcher.cancel(handle, kill=True)
        assert end_of(launcher, handle).killed


def test_a_source_that_ends_without_reading_the_message_is_replaced(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    first = launcher.submit(waiting(tmp_path / "first"), Resources())
    assert launcher._source is not None
    channel, source = launcher._source
    os.kill(source.pid, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(source.pid).status() == psutil.STATUS_STOPPED)

    def kill_when_sent() -> None:
        unread = bytearray(4)
        wait_until(lambda: fcntl.ioctl(channel, TIOCOUTQ, unread) == 0 and any(unread))
        os.kill(source.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_when_sent)
    killer.start()
    second = launcher.submit(waiting(tmp_path / "second"), Resources())
    killer.join()
    wait_until(lambda: running(tmp_path / "second"))
    for handle in (first, second):
        launcher.cancel(handle, kill=True)
        assert end_of(launcher, handle).killed


SUPERVISOR = """
import pathlib, sys, time
from workers.launchers.local import LocalLauncher
from workers.run.order import Resources
if __name__ == "__main__":
    launcher = LocalLauncher()
    print(launcher.submit(pathlib.Path(sys.argv[1]), Resources()), flush=True)
    time.sleep(600)
"""


TORCHRUN = """
import subprocess, sys, time
command = [sys.executable, "-m", "workers.run", sys.argv[1]]
print(subprocess.Popen(command, start_new_session=True).pid, flush=True)
time.sleep(600)
"""


def test_a_rank_ends_when_its_torchrun_is_killed(tmp_path: Path) -> None:
    folder = waiting(tmp_path / "run")
    torchrun = subprocess.Popen(
        [sys.executable, "-c", TORCHRUN, str(folder)],
        stdout=subprocess.PIPE,
        env={**UNREACHABLE, "RANK": "0", "WORLD_SIZE": "2"},
    )
    try:
        assert torchrun.stdout is not None
        rank = int(torchrun.stdout.readline())
        wait_until(lambda: running(folder))
    finally:
        torchrun.kill()
        torchrun.wait()
    wait_until(lambda: not Path(f"/proc/{rank}").exists())


def test_a_run_ends_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    folder = waiting(tmp_path / "run")
    script = tmp_path / "supervisor.py"
    script.write_text(SUPERVISOR)
    supervisor = subprocess.Popen(
        [sys.executable, str(script), str(folder)], stdout=subprocess.PIPE, env=UNREACHABLE
    )
    try:
        assert supervisor.stdout is not None
        run = int(supervisor.stdout.readline())
        wait_until(lambda: running(folder))
    finally:
        supervisor.kill()
        supervisor.wait()
    wait_until(lambda: not Path(f"/proc/{run}").exists())
