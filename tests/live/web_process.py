"""The web process as it is started everywhere, on the tests' own stores."""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import httpx

from assay.local.programs import stop_process_group
from assay.local.services import free_port
from tests.live.celery_worker import of_tests
from tests.live.preloaded import Process, start
from tests.shipped import ROOT, unit
from tests.waiting import wait_until


def environment(folder: Path, kind: str = "web") -> dict[str, str]:
    """The environment that is shipped for a process, on the tests' stores."""
    return of_tests(folder).environment(kind)


def shipped_options() -> tuple[str, ...]:
    """Return the options of the web process in its unit, without its address."""
    _, _, options = unit("web")["ExecStart"][0].partition("-m assay.server ")
    found = iter(shlex.split(options))
    return tuple(
        word
        for name, value in zip(found, found, strict=True)
        if name not in {"--host", "--port"}
        for word in (name, value)
    )


@cache
def collected() -> str:
    """Collect the static files once, as an installation does; return their folder."""
    folder = Path(tempfile.mkdtemp(prefix="assay-static-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    given = {"ASSAY_ENV": "development", "ASSAY_STATIC_COLLECTED": "1"}
    done = subprocess.run(
        [sys.executable, "manage.py", "collectstatic", "--no-input", "--verbosity", "0"],
        cwd=ROOT, env={**os.environ, **given, "ASSAY_STATIC_ROOT": str(folder)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return str(folder)


@contextmanager
def process(folder: Path, kind: str, *command: str, **settings: str) -> Iterator[Process]:
    """A Python module as a process of a kind, its output in `folder`/log; ended with the block."""
    with (folder / "log").open("ab") as log:
        given = of_tests(folder).environment(kind, **settings)
        started = start(("-m", *command), cwd=ROOT, env=given, output=log)
    try:
        yield started
    finally:
        stop_process_group(started)
    # psycopg's pool says so of what comes back in a transaction, or during a statement.
    log_text = (folder / "log").read_text(errors="replace")
    assert "returned connection" not in log_text, "a request left its connection in a transaction"


@contextmanager
def web(folder: Path, *more: str, **settings: str) -> Iterator[tuple[str, Process]]:
    """The web process, ready, with further options; its address and the process."""
    given = {"ASSAY_STATIC_ROOT": collected(), **settings}
    for _ in range(3):
        port = free_port()
        url, options = f"http://127.0.0.1:{port}", ("--port", str(port), "--log-level", "warning")
        with process(folder, "web", "assay.server", *options, *more, **given) as started:
            ready = _is_ready(url, started)
            if ready:
                yield url, started
                return
        # Another process may take the port before this one listens on it.
        text = (folder / "log").read_text(errors="replace")
        assert "ddress already in use" in text, text[-3000:]
    raise AssertionError("The web process found no free port.")


def _is_ready(url: str, started: Process) -> bool:
    """Wait until the web process is ready; return false if it ends before."""
    wait_until(lambda: started.poll() is not None or answers(f"{url}/readyz"))
    return started.poll() is None


def answers(url: str) -> bool:
    """Return whether a GET is answered with 200."""
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False
