"""The web process as it is started everywhere, on the tests' own stores."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
from django.db import connection

from assay.local.services import free_port, stop_process_group
from tests.unit.assay.gateway_support import wait_until

ROOT = Path(__file__).resolve().parents[2]


def environment(folder: Path) -> dict[str, str]:
    """What a process needs to work on the test's database."""
    values = connection.settings_dict
    host = quote(values["HOST"], safe="/")
    return {
        **os.environ,
        "DATABASE_URL": f"postgresql://{values['USER']}@/{values['NAME']}?host={host}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "platform"), str(folder)]),
    }


@contextmanager
def process(folder: Path, *command: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python module as a process, its output in `folder`/log; ended with the block."""
    with (folder / "log").open("ab") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            env={**environment(folder), **settings},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield started
    finally:
        stop_process_group(started)


@contextmanager
def web(folder: Path, **settings: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The web process, ready; its address and the process."""
    port = free_port()
    options = ("--port", str(port), "--log-level", "warning")
    with process(folder, "assay.server", *options, **settings) as started:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/readyz"), 60)
        yield url, started


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False
