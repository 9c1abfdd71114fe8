"""The process of a task of another package: its code harms no other task, whatever it does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.workers.recording import Answer, prompted
from tests.unit.workers.test_engine_process import ENGINE, is_gone
from tests.waiting import PATIENCE_S, wait_until
from workers.engine_process import watch
from workers.engine_process.client import OwnEngines, ProcessEngine
from workers.engine_process.watch import ProcessLimits
from workers.wire import Failed

LIMITS = ProcessLimits(batch_s=PATIENCE_S, load_s=PATIENCE_S, memory=512 * 1024**2, processes=32)
# For code that hangs; others may need longer than this on a busy machine.
BRIEF = replace(LIMITS, batch_s=3.0)


class Groups:
    """Engines of Assay's own code and of one other package."""

    def __init__(self, root: Path) -> None:
        self.own = OwnEngines(limits=ProcessLimits(batch_s=PATIENCE_S), foreign=LIMITS)
        self.hasty = OwnEngines(foreign=BRIEF)
        self.root = root
        self.assay = self.load(self.own, "", "own")
        self.theirs = self.load(self.own, "theirs", "theirs")

    def load(self, engines: OwnEngines, group: str, name: str) -> ProcessEngine:
        folder = self.root / name / "weights"
        folder.mkdir(parents=True, exist_ok=True)
        return engines.load(ENGINE, folder, root=folder.parent, group=group)

    def again(self, *, brief: bool = False) -> None:
        """Load the other package's engine again, as the reconciler does."""
        self.theirs.close()
        self.theirs = self.load(self.hasty if brief else self.own, "theirs", "theirs")


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Groups]:
    found = Groups(tmp_path_factory.mktemp("groups"))
    yield found
    found.theirs.close()
    found.assay.close()


def ask(engine: ProcessEngine, prompt: str, request_id: str = "r1") -> Answer:
    answer = Answer()
    engine.submit(prompted(request_id, {"prompt": prompt}), answer)
    return answer


LETHAL = {
    "hang": "A batch took longer than 3 s.",
    "spin": "It gave no sign of life for 3 s.",
    "end": "its exit status is 3",
    "crash": "it got SIGSEGV",
    "grow": "its limit is 0.5 GiB",
    "fork": "It started more than 32 processes.",
    "close": "ended",
    "garbage": "ended",
}


ALWAYS = {"hang", "end", "grow"}
# Only a time limit ends these.
HANGING = {"hang", "spin", "close"}


@pytest.mark.parametrize(
    "action",
    [pytest.param(each, marks=() if each in ALWAYS else pytest.mark.long) for each in LETHAL],
)
def test_code_that_ends_or_hangs_its_process_fails_its_own_requests_alone(
    groups: Groups, action: str
) -> None:
    if action in HANGING:
        groups.again(brief=True)
    running = ask(groups.assay, "one wait", action)
    waiting = ask(groups.theirs, "one wait", "other")
    answer = ask(groups.theirs, action)
    end = answer.wait()
    assert isinstance(end, Failed)
    assert (end.code, end.status) == ("engine_error", 503)
    # Everything that the process had ends with it, and is to be loaded again.
    assert isinstance(waiting.wait(), Failed)
    wait_until(lambda: groups.theirs.fault != "")
    assert LETHAL[action] in groups.theirs.fault
    assert groups.assay.fault == ""
    assert ask(groups.assay, "two words", f"{action}-2").done().completion_tokens == 2
    groups.assay.cancel(action)
    assert running.done().finish_reason == "canceled"
    groups.again()
    assert ask(groups.theirs, "one").done().completion_tokens == 1


def test_processes_that_left_the_session_end_with_their_engine(groups: Groups) -> None:
    answer = ask(groups.theirs, "fork")
    assert isinstance(answer.wait(), Failed)
    started = {int(delta.text) for delta in answer.deltas}
    assert len(started) > 8
    wait_until(lambda: all(map(is_gone, started)))
    groups.again()


@pytest.mark.parametrize("action", ["move", "thread", "exit", "panic"])
def test_code_that_changes_its_process_or_raises_anything_ends_no_other_request(
    groups: Groups, action: str
) -> None:
    ask(groups.theirs, action, action).wait()
    assert ask(groups.theirs, "one two", f"{action}-2").done().completion_tokens == 2
    pid = groups.theirs._process.pid
    groups.again()
    # A thread that was left behind keeps no process alive.
    wait_until(lambda: is_gone(pid))


def test_what_code_prints_is_bounded(
    groups: Groups, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead_s = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + ahead_s[0])
    monkeypatch.setattr(watch, "time", clock)
    groups.again()
    ask(groups.theirs, "print", "p1").done()
    ahead_s[0] += watch.OUTPUT_S + 1
    ask(groups.theirs, "print", "p2").done()
    printed = b""

    def told() -> bool:
        nonlocal printed
        printed += capfdbinary.readouterr().err
        return b"bytes more, which were dropped" in printed

    wait_until(told)
    assert len(printed) < 8 * watch.OUTPUT_BYTES < 2 * 10_000 * 140


def test_a_load_that_hangs_is_ended(tmp_path: Path) -> None:
    from workers.engine_process.messages import EngineFailed

    own = OwnEngines(foreign=ProcessLimits(load_s=1.0))
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "slow").touch()
    with pytest.raises(EngineFailed, match="was killed"):
        own.load(ENGINE, folder, root=tmp_path, group="theirs")
    assert own._processes == {}


def test_each_group_reads_its_own_weights_alone(groups: Groups) -> None:
    assert groups.assay._process.pid != groups.theirs._process.pid
    assert groups.assay._process.root != groups.theirs._process.root
