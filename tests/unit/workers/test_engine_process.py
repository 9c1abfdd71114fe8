"""Engines in a process of their own: what it answers, and that its end costs no request twice."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from registry.catalog.generation import GenerationInputs, SamplingOptions
from registry.sandbox import landlock
from tests.unit.workers.recording import Answer, ask, prompted
from tests.unit.workers.sealed import Wire, answering
from tests.unit.workers.test_tasks_answering import plan, request_for, told
from tests.waiting import wait_until
from workers.celery_tasks.hosting import EngineHost
from workers.engine_process import client, frames
from workers.engine_process.client import OWN, OwnEngines, ProcessEngine
from workers.engine_process.confinement import paths_allowed
from workers.engine_process.frames import BadFrame, pack, unpack
from workers.engine_process.messages import (
    EngineFailed,
    request_from_message,
    request_to_message,
)
from workers.engines.architectures import UnsupportedModel
from workers.engines.protocol import EngineRequest, RequestRefused
from workers.engines.runner import MediaOutput
from workers.wire import Done, Failed

ROOT = Path(__file__).resolve().parents[3]
ENGINE = "tests.unit.workers.process_engine:ProcessEngine"
DENIED = "Permission denied"


class Engines:
    """One process with one engine, which all tests of this file use until one ends it."""

    def __init__(self, root: Path) -> None:
        self.own = OwnEngines()
        self.root = root
        self.folder = self.made("weights")
        self.engine = self.load()

    def made(self, name: str) -> Path:
        """A folder of private copies."""
        folder = self.root / name
        folder.mkdir(parents=True)
        return folder

    def load(self, folder: Path | None = None) -> ProcessEngine:
        return self.own.load(ENGINE, folder or self.folder, root=self.root)

    @property
    def pid(self) -> int:
        return self.engine._process.pid

    def submit(self, prompt: str, request_id: str = "r1") -> Answer:
        answer = Answer()
        self.engine.submit(prompted(request_id, {"prompt": prompt}), answer)
        return answer

    def begun(self, prompt: str, request_id: str = "r1") -> Answer:
        """An answer that has begun and does not end by itself."""
        answer = self.submit(prompt, request_id)
        wait_until(lambda: answer.deltas != [])
        return answer

    def failed(self, answer: Answer) -> Failed:
        end = answer.wait()
        assert isinstance(end, Failed)
        return end


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    found = Engines(tmp_path_factory.mktemp("copies"))
    yield found
    found.engine.close()


@pytest.fixture
def engines(kept: Engines) -> Engines:
    if kept.engine.fault:
        kept.engine.close()
        kept.engine = kept.load()
    return kept


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_the_process_answers(engines: Engines) -> None:
    answer = engines.submit("one two")
    assert answer.done().completion_tokens == 2
    assert [each.text for each in answer.deltas] == ["one", "two"]


def test_the_process_reports_the_load_of_its_engine(engines: Engines) -> None:
    answer = engines.begun("one wait")
    wait_until(lambda: engines.engine.current_load().waiting == 1)
    engines.engine.cancel("r1")
    answer.wait()
    wait_until(lambda: engines.engine.current_load().waiting == 0)


def test_files_and_numbers_that_json_lacks_come_back_as_they_are(engines: Engines) -> None:
    done = engines.submit("file").done()
    made = MediaOutput(b"\x00\xff", "image/png", {"seed": 3})
    assert done.results == [{"image": made, "scores": [float("inf"), 0.5]}]


def test_the_process_has_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ASSAY_WIRE_KEY", "DATABASE_URL", "REDIS_URL", "HF_TOKEN", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    fresh = Engines(tmp_path)
    (names,) = fresh.submit("names").done().results or []
    fresh.engine.close()
    assert "OMP_NUM_THREADS" in names
    assert not {"ASSAY_WIRE_KEY", "DATABASE_URL", "REDIS_URL", "HF_TOKEN"} & set(names)


def test_the_process_reaches_its_copies_and_its_temporary_folder_alone(
    engines: Engines, tmp_path: Path
) -> None:
    scratch = engines.engine._process._scratch
    other, copied = tmp_path / "other", engines.made("copied") / "later"
    for file in (other, copied):
        file.write_text("bytes")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        tried = {
            ("read", copied): "done",
            ("write", copied): DENIED,
            ("truncate", copied): DENIED,
            ("remove", copied): DENIED,
            ("write", copied.parent / "new"): DENIED,
            ("write", scratch / "new"): "done",
            ("read", other): DENIED,
            ("write", other): DENIED,
            ("list", tmp_path): DENIED,
            ("write", ROOT / "workers" / "new.py"): DENIED,
            ("read", ROOT / "pyproject.toml"): DENIED,
            ("read", f"/proc/{os.getpid()}/environ"): DENIED,
            ("tcp", listening.getsockname()[1]): DENIED,
            ("signal", os.getpid()): "Operation not permitted",
        }
        (engines.folder / "tried").write_text(
            json.dumps([[way, str(target)] for way, target in tried])
        )
        (found,) = engines.submit("probe").done().results or []
    expected = list(tried.values())
    if landlock.abi() < 4 and found[-2] in ("Connection refused", "Network is unreachable"):
        expected[-2] = found[-2]  # It has no network, without the help of Landlock.
    if landlock.abi() < 6:
        expected[-1] = "done"
    assert dict(zip(tried, found, strict=True)) == dict(zip(tried, expected, strict=True))


def test_data_next_to_code_is_not_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("data", "package", "lib/site-packages"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "module.py").touch()
    (tmp_path / "key").touch()
    for path in (tmp_path / "lib/site-packages", tmp_path):
        monkeypatch.syspath_prepend(path)
    folders = [tmp_path / name for name in ("weights", "scratch", "code")]
    allowed = paths_allowed(ENGINE, *folders)
    found = {each for each in allowed["run"] if each.startswith(str(tmp_path))}
    code = ("package", "module.py", "lib/site-packages", "code")
    assert found == {str(tmp_path / name) for name in code}
    assert str(tmp_path) in allowed["list"]
    assert str(ROOT / "tests") in allowed["run"], "the package of the engine's class"


# Root reads all folders until its capabilities are gone.
ALLOWED = """
import json, pathlib, sys
from workers.engine_process.confinement import paths_allowed
from workers.engines.servers.launch import drop_capabilities
drop_capabilities()
print(json.dumps(paths_allowed("workers:Any", *map(pathlib.Path, "wsc"))))
"""


def test_folders_that_the_worker_cannot_open_are_left_out(tmp_path: Path) -> None:
    for name in ("package", "lost+found", "closed"):
        (tmp_path / name).mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "lost+found").chmod(0)
    (tmp_path / "closed").chmod(0)
    path = os.pathsep.join(map(str, (ROOT, tmp_path, tmp_path / "closed")))
    told = subprocess.check_output([sys.executable, "-c", ALLOWED], env={"PYTHONPATH": path})
    allowed = json.loads(told)["run"]
    assert [each for each in allowed if each.startswith(str(tmp_path))] == [
        str(tmp_path / "package")
    ]


def test_the_process_runs_where_the_kernel_has_no_landlock(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    fresh = Engines(tmp_path)
    assert fresh.submit("one two").done().completion_tokens == 2
    fresh.engine.close()


def test_a_canceled_request_ends(engines: Engines) -> None:
    answer = engines.begun("one wait")
    engines.engine.cancel("r1")
    assert answer.done().finish_reason == "canceled"
    engines.engine.cancel("unknown")


def test_a_prompt_that_takes_long_delays_no_other_and_can_be_canceled(engines: Engines) -> None:
    slow = engines.submit("slow", "slow")
    queued = [engines.submit("slow", f"slow{number}") for number in range(15)]
    late = engines.submit("one two", "late")
    engines.engine.cancel("late")
    other = engines.load()
    answer = Answer()
    other.submit(prompted("r1", {"prompt": "one two"}), answer)
    assert answer.done().completion_tokens == 2
    other.close()
    assert slow.end is None
    (engines.folder / "go").touch()
    assert [each.done().finish_reason for each in (slow, *queued)] == ["stop"] * 16
    assert late.done().finish_reason == "canceled"
    assert late.deltas == []


def test_a_request_runs_once_at_a_time(engines: Engines) -> None:
    first = engines.begun("one wait")
    with pytest.raises(RequestRefused, match="running already"):
        engines.submit("one two")
    engines.engine.cancel("r1")
    first.wait()


def test_what_an_engine_refuses_or_breaks_on_fails_alone(engines: Engines) -> None:
    answer = Answer()
    engines.engine.submit(prompted("r1", {"prompt": "x"}, {}, "missing"), answer)
    assert engines.failed(answer) == Failed("unknown_adapter", "That adapter is not loaded.", 404)
    assert engines.failed(engines.submit("panic")).status == 500
    assert engines.failed(engines.submit("unwritable")).code == "engine_error"
    assert engines.submit("one two").done().completion_tokens == 2


@pytest.mark.parametrize("answer", ["units", "no type"])
def test_an_answer_that_is_not_valid_fails_alone(engines: Engines, answer: str) -> None:
    other = engines.begun("one wait", "other")
    assert engines.failed(engines.submit(answer)).status == 500
    assert other.end is None
    engines.engine.cancel("other")
    assert other.done().finish_reason == "canceled"


def test_a_request_that_is_too_large_is_refused_and_others_go_on(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "MAX_FRAME", 1000)
    with pytest.raises(RequestRefused) as refused:
        engines.submit("word " * 300)
    assert refused.value.status == 413
    assert engines.submit("one two").done().completion_tokens == 2


def test_adapters_are_loaded_and_unloaded(engines: Engines) -> None:
    folder = engines.made("adapter")
    (folder / "weights.bin").write_bytes(b"x")
    engines.engine.add_adapter("7", folder)
    answer = Answer()
    engines.engine.submit(prompted("r1", {"prompt": "x"}, {}, "7"), answer)
    assert answer.done().finish_reason == "stop"
    engines.engine.remove_adapter("7")
    with pytest.raises(OSError, match=r"weights\.bin"):
        engines.engine.add_adapter("7", folder / "nothing")


@pytest.mark.parametrize(
    ("file", "kind", "said"),
    [
        ("unsupported", UnsupportedModel, "The model has no config.json."),
        ("broken", ValueError, "the weights make no sense"),
        ("other", EngineFailed, "OtherError: no device"),
    ],
)
def test_a_model_that_cannot_be_loaded_says_why(
    engines: Engines, file: str, kind: type[Exception], said: str
) -> None:
    folder = engines.made(file)
    (folder / file).touch()
    with pytest.raises(kind) as raised:
        engines.load(folder)
    assert (type(raised.value), str(raised.value)) == (kind, said)


def test_signals_to_all_processes_of_a_worker_leave_its_requests_alone(engines: Engines) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(engines.pid, number)
    assert engines.submit("one two").done().completion_tokens == 2


def test_a_killed_process_ends_each_request_once_and_serves_no_more(engines: Engines) -> None:
    answers = [engines.begun("one wait", f"r{number}") for number in range(3)]
    os.kill(engines.pid, signal.SIGKILL)
    ends = {engines.failed(answer).code for answer in answers}
    assert ends == {"engine_error"}
    assert "it was killed, or memory ran out" in engines.engine.fault
    with pytest.raises(RequestRefused):
        engines.submit("one two")
    with pytest.raises(EngineFailed):
        engines.engine.add_adapter("7", engines.folder)
    engines.engine.remove_adapter("7")
    engines.engine.cancel("r1")


def test_a_process_that_writes_no_frames_is_ended(engines: Engines) -> None:
    assert engines.failed(engines.submit("garbage")).code == "engine_error"
    assert engines.engine.fault
    wait_until(lambda: is_gone(engines.pid))


@pytest.mark.parametrize("adapter", [False, True])
def test_a_process_that_hangs_holds_up_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: bool
) -> None:
    monkeypatch.setattr(client, "END_S", 0.5)
    engines = Engines(tmp_path)
    other = engines.load()
    os.kill(engines.pid, signal.SIGSTOP)
    if adapter:
        with pytest.raises(EngineFailed, match="was killed"):
            engines.engine.remove_adapter("7")
    engines.engine.close()
    wait_until(lambda: "It did not answer within 0.5 s." in other.fault)
    other.close()


def test_the_process_ends_with_its_last_engine(tmp_path: Path) -> None:
    engines = Engines(tmp_path)
    first, second = engines.engine, engines.load()
    pid = first._process.pid
    first.close()
    assert not is_gone(pid)
    scratch = second._process._scratch
    second.close()
    assert is_gone(pid)
    assert not scratch.exists()


def test_a_process_that_cannot_start_leaves_no_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ValueError, match=r"[Ee]mpty"):
        OwnEngines().load("", tmp_path, root=tmp_path)  # No module has that name.
    assert list(tmp_path.iterdir()) == []


def test_the_process_ends_with_its_worker(tmp_path: Path) -> None:
    program = (
        "import pathlib, time; from workers.engine_process.client import OwnEngines;"
        f"folder = pathlib.Path({str(tmp_path)!r});"
        f"engine = OwnEngines().load({ENGINE!r}, folder, root=folder);"
        "print(engine._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        worker.kill()
    wait_until(lambda: is_gone(pid))


def test_a_deployment_whose_process_was_killed_serves_again(redis: Redis) -> None:
    own = OwnEngines()
    host = EngineHost(own=own)
    host.lease({1: float("inf")})
    try:
        host.load(plan())
        assert own._processes.keys() == {OWN}
        os.kill(own._processes[OWN].pid, signal.SIGKILL)
        wait_until(lambda: 1 in host.faults())
        host.unload(1)
        host.load(plan())
        assert host.faults() == {}
        wire = Wire()
        with answering(redis, host) as answerer:
            answerer.answer(*wire.open(request_for(plan())))
        assert isinstance(told(wire.read(redis))[-1], Done)
    finally:
        host.close()
    assert own._processes == {}


def test_a_request_arrives_with_its_files_and_no_text_passes_for_one() -> None:
    tools = [{"name": "f", "parameters": {"data": None, "path": ["inputs", 1], "bytes": "x"}}]
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image"}]
    inputs = GenerationInputs.model_validate(
        {
            "messages": [{"role": "user", "content": parts}],
            "images": [io.BytesIO(b"\x00picture")],
            "tools": tools,
        }
    )
    request = EngineRequest("r1", inputs, SamplingOptions(logit_bias={"5": -3}), "7", "dept")
    stream = io.BytesIO(pack(request_to_message(request)))
    message = unpack(stream)
    assert message is not None
    arrived = request_from_message(message)
    assert unpack(stream) is None
    assert isinstance(arrived.inputs, GenerationInputs)
    assert arrived.inputs.images[0].read() == b"\x00picture"
    same = arrived.inputs.model_copy(update={"images": inputs.images})
    assert same == inputs
    assert arrived.options == request.options
    assert (arrived.adapter, arrived.scope) == ("7", "dept")


def frame(head: tuple[int, int], text: bytes) -> bytes:
    return frames._LENGTHS.pack(*head) + text


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        frame((2**32 - 1, 5), b""),
        frame((5, 9), b"[{},[]]"),
        frame((7, 7), b"[{},[]"),
        frame((2, 2), b"{}"),
        frame((9, 7), b"[{},[]]xx"),
        frame((17, 15), b'[{},[[["a"],2]]]xx'),
        frame((23, 21), b'[{"a":1},[[["a"],2]]]xx'),
        frame((26, 24), b'[{"a":null},[[["a"],99]]]xx'),
        frame((7, 7), b"[5,[]] "),
    ],
)
def test_a_malformed_frame_is_refused(data: bytes) -> None:
    with pytest.raises(BadFrame):
        unpack(io.BytesIO(data))


@pytest.mark.parametrize("levels", [195, 250])
def test_what_has_a_frame_can_be_read(levels: int) -> None:
    value: Any = "x"
    for _ in range(levels):
        value = {"inner": value}
    assert unpack(io.BytesIO(pack({"value": value}))) == {"value": value}


@pytest.mark.parametrize("value", ["\ud800", object()], ids=["half a character", "an object"])
def test_what_has_no_frame_is_refused(value: Any) -> None:
    with pytest.raises(BadFrame):
        pack({"value": value})


@pytest.mark.torch
def test_a_model_and_its_adapter_say_the_same_in_a_process_of_their_own(
    engine: Any, tiny: Path, tmp_path: Path
) -> None:
    from tests.unit.workers.tiny import save_adapter

    remote = OwnEngines().load(
        "workers.engines.generation:GenerationEngine",
        tiny,
        root=tiny.parent,
        architectures=("LlamaForCausalLM",),
        threads=1,
        dtype="float32",
    )
    adapter = save_adapter(tiny, tiny.parent / "a", 1)
    for each in (engine, remote):
        each.add_adapter("a", adapter)
    prompts, names = ["The price of gold", "1, 2, 3,"] * 2, [None, None, "a", "a"]
    expected, found = (
        ask(each, prompts, adapters=names, max_tokens=10, temperature=0)
        for each in (engine, remote)
    )
    assert [answer.text for answer in found] == [answer.text for answer in expected]
    assert len({answer.text for answer in found}) == 4
    remote.remove_adapter("a")
    (gone,) = ask(remote, ["1, 2, 3,"], adapters=["a"], max_tokens=2)
    assert isinstance(gone.end, Failed)
    assert gone.end.code == "adapter_not_found"
    # With this many requests, some still run when the engine is closed, also on a slow machine.
    running = [Answer() for _ in range(100)]
    for number, answer in enumerate(running):
        remote.submit(prompted(f"r{number}", {"prompt": "1, 2"}, {"max_tokens": 200}), answer)
    wait_until(lambda: running[0].deltas != [])
    remote.close()
    failures = [answer.end.code for answer in running if isinstance(answer.end, Failed)]
    assert set(failures) == {"engine_stopped"}
    assert all(answer.end is not None for answer in running)
