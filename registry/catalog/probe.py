"""Trial of declarations in a separate process, before a serving process imports them.

The web process and workers import only declarations that passed. The trial detects code that, at
import, ends its process, hangs or changes global state.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from types import MappingProxyType
from typing import IO, cast

from registry.catalog.checks.faults import Fault
from registry.sandbox import landlock
from registry.sandbox.code import WRITTEN, code_paths

# A declaration takes milliseconds to import, and a hundred times as long on a busy machine.
SECONDS = 30.0
MEMORY_BYTES = 2 * 1024**3
MAX_FAULTS = 100
NONE: Mapping[str, Path] = MappingProxyType({})
_MAX_ANSWER_BYTES = 1024**2
# A package gets only these variables, as in its runs and its engine.
_VARIABLES = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TZ", "VIRTUAL_ENV")


def probe(points: Sequence[EntryPoint], packages: Mapping[str, Path] = NONE) -> list[Fault]:
    """Return the faults of the entry points' declarations; blocks for at most `SECONDS`.
    `packages` are as in `trial`.

    Raises:
        OSError: the process cannot be started.
    """
    module = "registry.catalog.checks.process"
    return trial(module, points, packages, seconds=SECONDS, memory=MEMORY_BYTES)


def trial(
    module: str,
    points: Sequence[EntryPoint],
    packages: Mapping[str, Path] = NONE,
    *,
    seconds: float,
    memory: int | None,
    environment: Mapping[str, str] | None = None,
    code: Mapping[str, Sequence[str]] | None = None,
) -> list[Fault]:
    """Return the faults that `python -m module` writes about entry points, or a fault of its end.

    Its standard output is untrusted. All processes that it started end with it. `packages` are the
    private copies of the task's packages, by name, imported in place of the installed packages.
    `environment` are its variables; by default, without those of Assay. `code` are the paths of
    code that it may open (`landlock.ruleset`), by default Python's; it may write only to a folder
    that is removed at the end.

    Raises:
        OSError: the process cannot be started.
    """
    if environment is None:
        environment = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    scratch = tempfile.mkdtemp(prefix="assay-trial-")
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**environment, **dict.fromkeys(WRITTEN, scratch), "PYTHONPATH": paths},
        start_new_session=True,
    )
    late = threading.Event()

    def expire() -> None:
        late.set()
        _end(process)

    timer = threading.Timer(seconds, expire)
    timer.start()
    stdin, stdout = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
    try:
        with contextlib.suppress(BrokenPipeError), stdin:
            request = {
                "points": [(point.name, point.value) for point in points],
                "memory": memory,
                "packages": {name: str(folder) for name, folder in packages.items()},
                "paths": _allowed(code or code_paths(), packages, scratch),
            }
            stdin.write(json.dumps(request).encode())
        with stdout:
            # Only one line: processes that the plug-in started may keep the pipe open.
            answer = stdout.readline(_MAX_ANSWER_BYTES)
        if not answer and not late.is_set():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
    finally:
        timer.cancel()
        status = process.poll()
        _end(process)
        process.wait()
        shutil.rmtree(scratch, ignore_errors=True)
    if late.is_set():
        timeout = f"It did not end within {seconds:g} s, and was killed."
        return [Fault("import", timeout, "Import and compute less.")]
    return _read(answer, status)


def _allowed(
    code: Mapping[str, Sequence[str]], packages: Mapping[str, Path], scratch: str
) -> dict[str, list[str]] | None:
    if landlock.abi() < landlock.LEAST_ABI:
        return None
    run = [*code["run"], *map(str, packages.values())]
    return {"run": run, "list": list(code["list"]), "own": [scratch]}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and its process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _read(answer: bytes, status: int | None) -> list[Fault]:
    try:
        faults = [Fault(str(a), str(b), str(c)) for a, b, c in json.loads(answer)]
    except (ValueError, TypeError, RecursionError):
        outcome = "an unreadable answer" if status is None else f"status {status}"
        if status is not None and status < 0:
            outcome = f"signal {-status}"
        return [
            Fault(
                "import",
                f"Its code ended the process that tried it, with {outcome}.",
                "Let the module only define things: no `exit`, no work and no threads at import.",
            )
        ]
    return faults[:MAX_FAULTS]
