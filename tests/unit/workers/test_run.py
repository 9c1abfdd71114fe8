"""A run in a process of its own: a folder in, events and a result out, without a database."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from governance.errors import InvalidInput, Unavailable
from registry.manifests import Manifest, build_manifest
from tests.unit.registry.objects import safetensors
from tests.waiting import PATIENCE_S, wait_until
from workers.control.jobs import Cause, Claim, HeartbeatReply, NoAnswer, Report
from workers.launchers.protocol import ProcessExit, last_lines
from workers.offers.values import Offers
from workers.run.events import (
    MAX_LINE_BYTES,
    Checkpoint,
    EventProgress,
    EventReader,
    Log,
    Metric,
    Phase,
)
from workers.run.order import Folder, IntakeWork, Order, Resources
from workers.run.outcome import STOPPED, Ending, Outcome, outcome_read, result_checked
from workers.supervision.supervisor import Supervisor

# Nothing of ours; addresses at which nothing answers.
UNREACHABLE = {
    "PATH": os.defpath,
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none",
    "REDIS_URL": "redis://127.0.0.1:9",
    "OMP_NUM_THREADS": "1",
}


def delivery(folder: Path) -> Manifest:
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(b'{"architectures": ["BertModel"]}')
    (folder / "model.safetensors").write_bytes(safetensors())
    return build_manifest(folder)


def order(manifest: Manifest, **changes: Any) -> Order:
    return Order(
        **{
            "job": uuid.uuid4(),
            "title": "Check",
            "attempt": 1,
            "fence": 1,
            "work": IntakeWork(task="embeddings", max_bytes=10**9),
            "folders": (Folder(name="delivery", manifest=manifest.to_json(), quarantine=1),),
            "max_output_bytes": 10**9,
            **changes,
        }
    )


def finished(folder: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "workers.run", str(folder)],
        env=UNREACHABLE,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_a_run_needs_no_database_and_no_broker(tmp_path: Path) -> None:
    manifest = delivery(tmp_path / "inputs" / "delivery")
    order(manifest).write(tmp_path)
    done = finished(tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    outcome = outcome_read(tmp_path)
    assert outcome is not None
    assert outcome.ending is Ending.DONE, outcome.sentence
    result = result_checked("intake", outcome.result)
    assert (
        Manifest.from_json(result["manifest"]).digest == build_manifest(tmp_path / "output").digest
    )
    events = list(EventReader(tmp_path).read())
    assert next(event.name for event in events if isinstance(event, Phase)) == "checking"
    assert any(isinstance(event, Log) for event in events)


def test_a_folder_without_an_order_is_a_broken_run_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text('{"job": 1}')
    assert finished(tmp_path).returncode == 0
    outcome = outcome_read(tmp_path)
    assert outcome is not None
    assert outcome.ending is Ending.BROKEN
    assert "order.json is not an order" in outcome.sentence


def test_curves_are_thinned_and_numbers_that_are_none_left_out(tmp_path: Path) -> None:
    progress = EventProgress(tmp_path, threading.Event())
    for step in range(1, 10_001):
        progress.metric(step, 10_000, {"loss": 1 / step, "broken": float("nan")})
    progress.close()
    points = [e for e in EventReader(tmp_path).read() if isinstance(e, Metric) and e.values]
    assert len(points) == 2_000
    assert points[-1].values == {"loss": 1 / 10_000}


def test_the_end_of_a_run_is_written_however_soon_it_comes(tmp_path: Path) -> None:
    progress = EventProgress(tmp_path, threading.Event())
    for step in (194, 390, 400):
        progress.metric(step, 400, {})
    progress.close()
    last = [event for event in EventReader(tmp_path).read() if isinstance(event, Metric)][-1]
    assert (last.step, last.total) == (400, 400)


def test_lines_that_are_no_events_are_dropped_and_counted(tmp_path: Path) -> None:
    manifest = {"base": None, "files": []}
    lines: list[Any] = [
        b"not json",
        b'{"event": "log", "message": "good"}',
        b'{"event": "log", "message": 7}',
        b'{"event": "drop table"}',
        json.dumps(
            {"event": "checkpoint", "name": "../../x", "manifest": manifest, "there": []}
        ).encode(),
        b'{"event": "metric", "step": -1, "total": 1, "values": {}}',
        b'{"event": "metric", "step": 1, "total": 1, "values": {"loss": NaN}}',
        b'{"event": "metric", "step": 1, "total": 1, "values": {"loss": 1e999}}',
        b'{"event": "metric", "step": 1, "total": 1, "values": {"a\\u0000": 1}}',
        b'{"event": "log", "message": "a\\u0000b"}',
        b'{"event": "log", "message": "a\\ud800b"}',
        b'{"event": "checkpoint", "name": "checkpoint-1", "manifest": {"\\u0000": 1}, "there": []}',
    ]
    (tmp_path / "events.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    reader = EventReader(tmp_path)
    assert list(reader.read()) == [Log(message="good")]
    assert (reader.malformed, reader.excess) == (11, False)


def test_an_endless_line_is_not_read_into_memory(tmp_path: Path) -> None:
    with (tmp_path / "events.jsonl").open("wb") as file:
        file.truncate(3 * MAX_LINE_BYTES)
    reader = EventReader(tmp_path)
    assert list(reader.read()) == []
    assert reader.excess


def test_a_checkpoint_is_reported_with_the_manifest_of_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "checkpoint-3"
    folder.mkdir(parents=True)
    (folder / "state.bin").write_bytes(b"state")
    progress = EventProgress(tmp_path, threading.Event())
    progress.checkpoint(folder)
    [event] = EventReader(tmp_path).read()
    assert isinstance(event, Checkpoint)
    assert event.manifest == build_manifest(folder).to_json()
    assert event.there == ("checkpoint-3",)


GOOD = {
    "metrics": {"loss": 0.5},
    "parameters": {},
    "manifest": {"base": None, "files": [{"path": "a", "size": 1, "sha256": "0" * 64}]},
}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"metrics": {"loss": float("nan")}}, "a number that is not finite"),
        ({"metrics": {"loss": "nan"}}, "malformed: metrics.loss"),
        ({"manifest": {"base": None, "files": [{}]}}, "not a manifest"),
        ({"parameters": {"trainer": "a\x00b"}}, "a character that cannot be stored"),
        ({"version": 7}, "malformed: version"),
    ],
    ids=["nan", "nan as text", "manifest", "character", "extra"],
)
def test_a_result_is_checked_as_outside_input(changes: dict[str, Any], sentence: str) -> None:
    assert result_checked("fine_tune", GOOD)["metrics"] == GOOD["metrics"]
    with pytest.raises(InvalidInput) as refused:
        result_checked("fine_tune", {**GOOD, **changes})
    assert sentence in " ".join(refused.value.message.split())


class Recorder:
    """A control plane that keeps what it is told. Its database is this object."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.phases: list[str] = []
        self.told: list[Any] = []
        self.causes: list[Cause] = []
        self.printed: list[str] = []
        self.cancel = False
        self.pause = False

    def claim(self, job_id: str, worker: str) -> None:
        raise NotImplementedError

    def heartbeat(self, claim: Claim) -> HeartbeatReply:
        return HeartbeatReply(alive=True, cancel_requested=self.cancel, pause_requested=self.pause)

    def report(self, claim: Claim, reports: Sequence[Report], phase: str) -> HeartbeatReply:
        self.phases.append(phase)
        self.lines += [report.message for report in reports if report.message]
        return self.heartbeat(claim)

    def working(self, claim: Claim, *, works: bool) -> None:
        self.told.append(("working", works))

    def checkpoint(self, claim: Claim, name: str, manifest: Any, remaining: Any) -> None:
        self.told.append(("checkpoint", name))

    def deliver(self, claim: Claim, result: dict[str, Any]) -> None:
        self.told.append(("deliver", result_checked(claim.kind, result)))

    def tasks_report(self, worker: str, offers: Offers) -> None:
        raise NotImplementedError

    def fail(
        self,
        claim: Claim,
        sentence: str,
        *,
        retry: bool,
        cause: Cause = Cause.WORK,
        lines: str = "",
    ) -> None:
        self.told.append(("fail", sentence, retry))
        self.causes.append(cause)
        self.printed.append(lines)

    def canceled(self, claim: Claim) -> None:
        self.told.append(("canceled",))

    def paused(self, claim: Claim) -> None:
        self.told.append(("paused",))

    def close(self) -> None:
        pass


class Folders:
    """Files in a folder of the test."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def attempt_folder(self, claim: Claim) -> Path:
        return self.root / str(claim.fence)

    def checkpoints_folder(self, claim: Claim) -> Path:
        return self.root / "checkpoints"

    def fetch(self, order: Order, inputs: Path) -> None:
        delivery(inputs / "delivery")

    def leave(self, claim: Claim) -> None:
        shutil.rmtree(self.attempt_folder(claim) / "inputs")


class Scripted:
    """A launcher whose runs are small programs, so that they can die in every way."""

    poll_s = 0.02

    def __init__(self, program: str) -> None:
        self.program = program
        self.process: subprocess.Popen[bytes] | None = None
        self.away = 0
        self.waits = 0
        self.silent = 0

    def submit(self, folder: Path, resources: Resources) -> str:
        self._answer()
        with (folder / "log.txt").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", self.program], cwd=folder, stdout=log, stderr=log
            )
        self.folder = folder
        return "run"

    def poll(self, handle: str) -> ProcessExit | None:
        assert self.process is not None
        status = self.process.poll()
        return None if status is None else ProcessExit(status)

    def works(self, handle: str) -> bool:
        self.waits -= 1
        return self.waits < 0

    def end_earlier(self, folder: Path) -> None:
        self._answer()

    def _answer(self) -> None:
        if self.silent:
            self.silent -= 1
            raise Unavailable("The cluster does not answer.")

    def cancel(self, handle: str, *, kill: bool = False) -> None:
        if self.away:
            self.away -= 1
            raise Unavailable("Slurm did not answer.")
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)

    def logs(self, handle: str) -> str:
        return last_lines(self.folder)

    def forget(self, handle: str) -> None:
        assert self.process is not None
        self.process.wait()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send heartbeats often, under a lease that a busy machine can keep."""
    monkeypatch.setattr("workers.supervision.lease.RENEW_S", 0.2)


def supervised(
    tmp_path: Path,
    program: str,
    *,
    cancel: bool = False,
    pause: bool = False,
    stop_s: float = 5,
    control: Recorder | None = None,
    away: int = 0,
    waits: int = 0,
    silent: int = 0,
    away_s: float = 60,
    devices: int = 1,
) -> Any:
    control = control or Recorder()
    made = order(delivery(tmp_path / "delivery"))
    made = made.model_copy(update={"resources": Resources(devices=devices)})
    claim = Claim(made.job, 1, 1, "intake", "Check", "w1", lease_s=60)
    launcher = Scripted(program)
    launcher.away, launcher.waits, launcher.silent = away, waits, silent
    control.cancel = False
    if cancel or pause:
        original = launcher.submit

        def submit(folder: Path, resources: Resources) -> str:
            handle = original(folder, resources)
            # A signal that arrives before the handler is set would end the program.
            wait_until((folder / "ready").exists)
            control.cancel, control.pause = cancel, pause
            return handle

        launcher.submit = submit  # type: ignore[method-assign]
    times = {"stop_s": stop_s, "pause_s": stop_s, "away_s": away_s}
    Supervisor(control, Folders(tmp_path), launcher, **times).run(claim, made)
    return control


def test_an_attempt_is_held_while_it_works_and_ends_what_is_left_of_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.supervision.supervisor.HELD_S", 0.0)
    for fence in ("0", "2"):
        (tmp_path / fence).mkdir()
        (tmp_path / fence / "order.json").touch()
    control = supervised(tmp_path, "open('order.json'); raise SystemExit(3)")
    assert "status 3" in control.told[-1][1]
    assert [fence for fence in "012" if (tmp_path / fence / "order.json").exists()] == ["2"]


KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
BROKEN = "import sys; print('no space left'); sys.exit(3)"
SILENT = "pass"
HOSTILE = (
    "import json; open('result.json','w').write(json.dumps({'ending': 'done', 'result': "
    "{'manifest': {'base': None, 'files': [{'path': '../../etc', 'size': 1, 'sha256': '0'*64}]}}}))"
)
HUGE = "open('result.json','wb').truncate(1 << 40)"
FLOOD = (
    'line = b\'{"event": "log", "message": "\' + b\'x\' * 9000 + b\'"}\\n\'\n'
    "file = open('events.jsonl', 'ab')\n"
    "while True: file.write(line * 100)"
)

# The worker must neither wait for a pipe nor read its own files for a run.
PIPE = "import os; os.mkfifo('events.jsonl'); import time; time.sleep(600)"
RESULT_PIPE = "import os; os.mkfifo('result.json')"
ORDER_FOLDER = (
    "import os; os.remove('order.json'); os.makedirs('order.json/more'); raise SystemExit(3)"
)
LINK = (
    "import os; open('../secret', 'w').write('hunter2'); os.remove('log.txt'); "
    "os.symlink('../secret', 'log.txt'); raise SystemExit(3)"
)


@pytest.mark.parametrize(
    ("program", "sentence", "retry"),
    [
        (KILLED, "The run was killed", True),
        (BROKEN, "status 3. Its last line: no space left", True),
        (SILENT, "ended without a result", True),
        (HOSTILE, "steps out of its folder", False),
        (HUGE, "larger than", False),
        (FLOOD, "more events than a job may have", False),
        (PIPE, "events.jsonl is not a plain file", True),
        (RESULT_PIPE, "result.json is not a plain file", True),
        (ORDER_FOLDER, "status 3", True),
        (LINK, "It printed nothing", True),
    ],
    ids=[
        *("killed", "broken", "silent", "hostile", "huge", "flood"),
        *("pipe", "result pipe", "order folder", "link"),
    ],
)
def test_a_run_that_dies_or_lies_fails_the_attempt_and_says_why(
    tmp_path: Path, program: str, sentence: str, retry: bool
) -> None:
    control = supervised(tmp_path, program)
    [(verb, said, again)] = control.told
    assert (verb, again) == ("fail", retry)
    assert sentence in said
    assert not (tmp_path / "1" / "inputs").exists()
    assert not (tmp_path / "1" / "order.json").exists()


PHASES = (
    'open("events.jsonl", "w").write("".join(\'{"event": "phase", "name": "p%d"}\\n\' % n '
    "for n in range(2000)))"
)


def test_phases_are_sent_at_most_every_half_second(tmp_path: Path) -> None:
    control = supervised(tmp_path, PHASES)
    assert len(control.phases) < 20
    assert control.phases[-1] == "p1999"


def test_events_that_a_reader_left_are_read_later(tmp_path: Path) -> None:
    progress = EventProgress(tmp_path, threading.Event())
    for number in range(5):
        progress.log(str(number))
    progress.close()
    reader = EventReader(tmp_path)
    assert next(reader.read()) == Log(message="0")
    assert list(reader.read()) == [Log(message=str(n)) for n in range(1, 5)]


class Restarting(Recorder):
    """A control plane that does not answer the first two times that it is told of an end."""

    def fail(
        self,
        claim: Claim,
        sentence: str,
        *,
        retry: bool,
        cause: Cause = Cause.WORK,
        lines: str = "",
    ) -> None:
        self.told.append(("no answer",))
        if len(self.told) <= 2:
            raise NoAnswer("restarting")
        super().fail(claim, sentence, retry=retry, cause=cause, lines=lines)


def test_an_end_is_handed_over_again_until_the_control_plane_answers(tmp_path: Path) -> None:
    control = supervised(tmp_path, BROKEN, control=Restarting())
    assert [each[0] for each in control.told] == ["no answer"] * 3 + ["fail"]


def test_a_run_writes_text_that_can_be_stored(tmp_path: Path) -> None:
    progress = EventProgress(tmp_path, threading.Event())
    progress.log("a\x00b\ud800")
    progress.close()
    assert list(EventReader(tmp_path).read()) == [Log(message="a\ufffdb\ufffd")]
    Outcome(ending=Ending.BROKEN, sentence="no\x00").write(tmp_path)
    outcome = outcome_read(tmp_path)
    assert outcome is not None
    assert outcome.sentence == "no\ufffd"


READY = "open('ready', 'w').close(); time.sleep(600)"
STOPS = f"""
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit({STOPPED}))
{READY}
"""
IGNORES = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY}"


@pytest.mark.parametrize("program", [STOPS, IGNORES], ids=["stops", "ignores"])
def test_a_cancel_sends_sigterm_and_kills_a_run_that_does_not_stop(
    tmp_path: Path, program: str
) -> None:
    control = supervised(tmp_path, program, cancel=True, stop_s=0.5)
    assert control.told == [("canceled",)]


CHECKPOINTS = f"""
import signal, sys, time
def stop(*_):
    made = '{{"event": "checkpoint", "name": "checkpoint-7", "there": ["checkpoint-7"], '
    open("events.jsonl", "a").write(made + '"manifest": {{"base": null, "files": []}}}}\\n')
    sys.exit({STOPPED})
signal.signal(signal.SIGTERM, stop)
{READY}
"""


@pytest.mark.parametrize(
    ("program", "stop_s", "told"),
    [
        (CHECKPOINTS, 30, [("checkpoint", "checkpoint-7"), ("paused",)]),
        (IGNORES, 0.5, [("paused",)]),
    ],
    ids=["stops", "ignores"],
)
def test_a_pause_is_confirmed_after_the_checkpoint_was_recorded(
    tmp_path: Path, program: str, stop_s: float, told: list[Any]
) -> None:
    assert supervised(tmp_path, program, pause=True, stop_s=stop_s).told == told


def test_a_run_is_told_to_end_until_the_launcher_answers(tmp_path: Path) -> None:
    control = supervised(tmp_path, IGNORES, cancel=True, stop_s=0.5, away=3)
    assert control.told == [("canceled",)]


def test_a_run_starts_once_its_launcher_answers(tmp_path: Path) -> None:
    control = supervised(tmp_path, BROKEN, silent=2)
    # No device time counts while it is waited for.
    assert control.told[:2] == [("working", False), ("working", True)]
    assert "no space left" in control.told[2][1]
    assert "The cluster does not answer. The worker tries again." in control.lines


def test_a_launcher_that_stays_away_fails_the_attempt(tmp_path: Path) -> None:
    control = supervised(tmp_path, BROKEN, silent=99, away_s=0.5)
    assert control.told[-1] == ("fail", "On w1: The cluster does not answer.", True)
    assert control.causes == [Cause.MACHINE]


def test_a_job_that_waits_for_its_launcher_can_be_paused(tmp_path: Path) -> None:
    control = Recorder()
    control.pause = True
    made = order(delivery(tmp_path / "delivery"))
    launcher = Scripted(BROKEN)
    launcher.silent = 99
    claim = Claim(made.job, 1, 1, "intake", "Check", "w1", lease_s=60)
    Supervisor(control, Folders(tmp_path), launcher).run(claim, made)
    assert control.told == [("working", False), ("paused",)]


SEVERAL = f"""
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
{READY}
"""


def test_several_processes_that_end_without_a_result_on_a_cancel_are_canceled(
    tmp_path: Path,
) -> None:
    control = supervised(tmp_path, SEVERAL, cancel=True, devices=2)
    assert control.told == [("canceled",)]


def test_several_processes_that_end_without_a_result_were_stopped(tmp_path: Path) -> None:
    control = supervised(tmp_path, SILENT, devices=2)
    [(verb, sentence, retry)] = control.told
    assert (verb, retry) == ("fail", True)
    assert sentence == "The run stopped without a request to stop."


class Counting(Recorder):
    """A control plane that lets the run end once device time counts."""

    def __init__(self, go: Path) -> None:
        super().__init__()
        self.go = go

    def working(self, claim: Claim, *, works: bool) -> None:
        super().working(claim, works=works)
        if works:
            self.go.touch()


ENDS_LATER = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)"


def test_device_time_is_not_counted_while_a_run_waits_for_machines(tmp_path: Path) -> None:
    control = Counting(tmp_path / "1" / "go")
    supervised(tmp_path, ENDS_LATER, waits=3, control=control)
    assert control.told[:2] == [("working", False), ("working", True)]
    assert [each[0] for each in control.told[2:]] == ["fail"]
