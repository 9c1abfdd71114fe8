"""Real Celery workers beside the tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.db import connection

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 40.0


def database_url() -> str:
    values = connection.settings_dict
    user, name = quote(values["USER"]), quote(values["NAME"])
    password = f":{quote(values['PASSWORD'])}" if values["PASSWORD"] else ""
    port = f"&port={values['PORT']}" if values["PORT"] else ""
    return f"postgresql://{user}{password}@/{name}?host={quote(values['HOST'], safe='/')}{port}"


@contextmanager
def worker(log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Celery worker."""
    command = ("-m", "celery", "-A", "workers.app", "worker", "--loglevel", "INFO")
    with started(log, b" ready.", *command, "-n", f"{log.stem}@%h", *options) as process:
        yield process


@contextmanager
def controller(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The control plane's loops."""
    with started(log, b"The controller runs", "manage.py", "run_controller") as process:
        yield process


@contextmanager
def started(log: Path, ready: bytes, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process in its own group, on the tests' database and broker, once it is `ready`."""
    environment = {**os.environ, "DATABASE_URL": database_url(), "PYTHONPATH": str(ROOT)}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until(lambda: ready in log.read_bytes() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)
