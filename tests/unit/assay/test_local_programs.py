"""Parts of an installation on one machine are started again, and do not outlive it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis as redis_module

from assay.local.programs import Program, Watch
from assay.local.services import Postgres, Valkey
from tests.unit.assay.gateway_support import wait_until

LEFT_BEHIND = """
import sys, time
from pathlib import Path
from assay.local.programs import Program
from assay.local.services import Valkey
folder = Path(sys.argv[1])
valkey = Valkey(folder / "valkey")
log = folder / "log"
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
program = Program(sleep, environment={}, log=log, folder=folder)
print(program.process.pid, valkey._server._process.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user may enter, as it may not pytest's."""
    with tempfile.TemporaryDirectory(prefix="assay-parts-", ignore_cleanup_errors=True) as scratch:
        Path(scratch).chmod(0o755)
        yield Path(scratch)


def test_a_process_that_ends_again_soon_is_started_after_a_pause(tmp_path: Path) -> None:
    made = tmp_path / "made"
    code = f"open({str(made)!r}, 'a').write('x')"
    program = Program(
        [sys.executable, "-c", code], environment=dict(os.environ), log=tmp_path / "log",
        folder=tmp_path,
    )  # fmt: skip
    watch = Watch(program)
    wait_until(program.ended)
    assert watch.restarted()
    wait_until(program.ended)
    assert not watch.restarted()
    while not watch.restarted():
        time.sleep(0.05)
    wait_until(program.ended)
    assert made.read_text() == "xxx"


def test_a_process_that_runs_is_left_alone(tmp_path: Path) -> None:
    program = Program(
        [sys.executable, "-c", "import time; time.sleep(600)"], environment=dict(os.environ),
        log=tmp_path / "log", folder=tmp_path,
    )  # fmt: skip
    first = program.process.pid
    assert not Watch(program).restarted()
    program.stop()
    assert program.process.pid == first
    assert program.ended()


def test_postgresql_is_started_again_with_its_rows(folder: Path) -> None:
    postgres = Postgres(folder / "postgres")
    try:
        url = postgres.url("postgres")
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        psutil.Process(int((folder / "postgres" / "postmaster.pid").read_text().split()[0])).kill()
        wait_until(postgres.ended)
        watch = Watch(postgres)
        wait_until(lambda: _restarted(watch))
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT one FROM kept").fetchone() == (1,)
        assert not postgres.ended()
    finally:
        postgres.stop()


def test_valkey_is_started_again_with_its_keys_and_passwords(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path / "valkey")
    try:
        with redis_module.Redis.from_url(valkey.url) as client:
            client.set("kept", "1")
            client.execute_command("WAITAOF", 1, 0, 10_000)
        psutil.Process(valkey._server._process.pid).kill()
        wait_until(valkey.ended)
        assert Watch(valkey).restarted()
        with redis_module.Redis.from_url(valkey.url) as client:
            assert client.get("kept") == b"1"
    finally:
        valkey.stop()


def test_nothing_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LEFT_BEHIND, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        program, server = map(int, supervisor.stdout.readline().split())
        supervisor.kill()
    # The kernel ends our processes.
    wait_until(lambda: not _runs(program))
    # Valkey goes on, until the next start ends it.
    assert _runs(server)
    Valkey(tmp_path / "valkey").stop()
    assert not _runs(server)


def _restarted(watch: Watch) -> bool:
    try:
        return watch.restarted()
    except subprocess.CalledProcessError:
        return False  # The processes of the killed server have not all ended.


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
