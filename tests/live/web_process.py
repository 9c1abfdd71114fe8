"""The web process as it is started everywhere, on the tests' own stores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from assay.local.services import free_port, stop_process_group
from tests.live.celery_worker import database_url
from tests.live.preloaded import Process, start
from tests.services import broker_url
from tests.unit.assay.gateway_support import wait_until

ROOT = Path(__file__).resolve().parents[2]


def environment(folder: Path, kind: str) -> dict[str, str]:
    """Environment of a process of a kind (`web`, `worker`) in its role on the test's database."""
    return {
        **os.environ,
        "ASSAY_PROCESS": kind,
        "DATABASE_URL": database_url(kind),
        "REDIS_URL": broker_url("web"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "platform"), str(folder)]),
    }


@contextmanager
def process(folder: Path, kind: str, *command: str, **settings: str) -> Iterator[Process]:
    """A Python module as a process of a kind, its output in `folder`/log; ended with the block."""
    with (folder / "log").open("ab") as log:
        given = {**environment(folder, kind), **settings}
        started = start(("-m", *command), cwd=ROOT, env=given, output=log)
    try:
        yield started
    finally:
        stop_process_group(started)
    # psycopg's pool says so of what comes back in a transaction, or during a statement.
    log_text = (folder / "log").read_text(errors="replace")
    assert "returned connection" not in log_text, "a request left its connection in a transaction"


@contextmanager
def web(folder: Path, **settings: str) -> Iterator[tuple[str, Process]]:
    """The web process, ready; its address and the process."""
    port = free_port()
    options = ("--port", str(port), "--log-level", "warning")
    with process(folder, "web", "assay.server", *options, **settings) as started:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/readyz"), 60)
        yield url, started


def answers(url: str) -> bool:
    """Return whether a GET is answered with 200."""
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False
