"""An engine for tests of the process that engines run in: the echo, with ways to go wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from registry.catalog.generation import GenerationInputs
from tests.unit.workers.confinement import PROBE
from tests.unit.workers.echo import EchoEngine
from workers.engines.architectures import UnsupportedModel
from workers.engines.protocol import EngineRequest, Sink
from workers.engines.runner import MediaOutput
from workers.wire import Delta, Done


class OtherError(Exception):
    """An error of no kind that the worker knows."""


class ProcessEngine(EchoEngine):
    """Prompts of one word do what `_DONE` lists; all others are echoed. `slow` is read until the
    file `go` is in the engine's folder.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        if (folder / "unsupported").exists():
            raise UnsupportedModel("The model has no config.json.")
        if (folder / "other").exists():
            raise OtherError("no device")
        super().__init__(folder, **settings)

    def submit(self, request: EngineRequest, sink: Sink) -> None:
        assert isinstance(request.inputs, GenerationInputs)
        action = _DONE.get(request.inputs.prompt or "")
        if action is None:
            super().submit(request, sink)
        else:
            action(self.folder, request.inputs, sink)


def _slow(folder: Path, inputs: GenerationInputs, sink: Sink) -> None:
    while not (folder / "go").exists():
        time.sleep(0.01)
    sink(Done("stop", 1, 1))


def _names(folder: Path, inputs: GenerationInputs, sink: Sink) -> None:
    sink(Done("stop", 1, 0, results=[sorted(os.environ)]))


def _probe(folder: Path, inputs: GenerationInputs, sink: Sink) -> None:
    """Try the accesses that the file `tried` lists, from a process that this one starts."""
    tried = (folder / "tried").read_text()
    command = [sys.executable, "-I", "-c", PROBE, tried]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout
    sink(Done("stop", 1, 0, results=[json.loads(told.rpartition("PROBE")[2])]))


def _file(folder: Path, inputs: GenerationInputs, sink: Sink) -> None:
    made = MediaOutput(b"\x00\xff", "image/png", {"seed": 3})
    sink(Done("stop", 1, 0, results=[{"image": made, "scores": [float("inf"), 0.5]}]))


def _unwritable(folder: Path, inputs: GenerationInputs, sink: Sink) -> None:
    sink(Done("stop", 1, 0, results=["\ud800"]))


def _units(folder: Path, inputs: GenerationInputs, sink: Sink) -> None:
    """Count what cannot be counted in parts."""
    sink(Done("stop", 1, 0, units=1.5))  # type: ignore[arg-type]


def _no_type(folder: Path, inputs: GenerationInputs, sink: Sink) -> None:
    """Give back bytes without their type."""
    sink(Done("stop", 1, 0, results=[{"data": b"x"}]))


def _garbage(folder: Path, inputs: GenerationInputs, sink: Sink) -> None:
    """Write to the worker what is no frame."""
    sink(Delta("before", 1))
    time.sleep(0.1)
    for each in map(int, os.listdir("/proc/self/fd")):
        try:
            if stat.S_ISSOCK(os.fstat(each).st_mode):
                os.write(each, b"\xff" * 64)
        except OSError:
            pass


def _hang(folder: Path, inputs: GenerationInputs, sink: Sink) -> None:
    time.sleep(600)


def _spin(folder: Path, inputs: GenerationInputs, sink: Sink) -> None:
    """Hold the interpreter's lock: no other thread of the process runs any more."""
    re.match("(a+)+b", "a" * 64)


def _end(folder: Path, inputs: GenerationInputs, sink: Sink) -> None:
    os._exit(3)


def _crash(folder: Path, inputs: GenerationInputs, sink: Sink) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _grow(folder: Path, inputs: GenerationInputs, sink: Sink) -> None:
    kept = [bytearray(b"x" * 2**20) for _ in range(2_000)]
    time.sleep(len(kept))


def _fork(folder: Path, inputs: GenerationInputs, sink: Sink) -> None:
    """Start processes that leave the session, as daemons do; answer with their IDs."""
    for _ in range(100):
        child = os.fork()
        if child == 0:
            os.setsid()
            time.sleep(600)
        sink(Delta(str(child), 1))
        time.sleep(0.01)
    time.sleep(600)


def _close(folder: Path, inputs: GenerationInputs, sink: Sink) -> None:
    os.closerange(0, 256)
    time.sleep(600)


def _print(folder: Path, inputs: GenerationInputs, sink: Sink) -> None:
    for _ in range(10_000):
        sys.stdout.write("secret " * 20 + "\n")
    sys.stdout.flush()
    sink(Done("stop", 1, 0))


def _move(folder: Path, inputs: GenerationInputs, sink: Sink) -> None:
    os.chdir("/")
    os.environ.clear()
    sink(Done("stop", 1, 0))


def _thread(folder: Path, inputs: GenerationInputs, sink: Sink) -> None:
    threading.Thread(target=time.sleep, args=(600,)).start()
    sink(Done("stop", 1, 0))


_DONE = {
    "hang": _hang,
    "spin": _spin,
    "end": _end,
    "crash": _crash,
    "grow": _grow,
    "fork": _fork,
    "close": _close,
    "print": _print,
    "move": _move,
    "thread": _thread,
    "slow": _slow,
    "names": _names,
    "probe": _probe,
    "file": _file,
    "unwritable": _unwritable,
    "units": _units,
    "no type": _no_type,
    "garbage": _garbage,
}
