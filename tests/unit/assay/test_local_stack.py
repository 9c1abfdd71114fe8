"""Files and ports of the demo on a machine with other users."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path

from assay.local.services import Postgres
from assay.local.stack import Stack
from tests.waiting import wait_until


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_no_other_user_reads_data_uploads_or_logs(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    for name in ("data", "logs"):  # As an earlier version left them.
        (folder / name).mkdir(parents=True, mode=0o755)
    stack = Stack(folder)
    stack.make_folders()
    assert mode(folder) == 0o700
    for name in ("data", "logs", "secrets", "uploads", "valkey"):
        assert mode(folder / name) == 0o700, name


def test_postgresql_opens_no_folder_of_the_demo_and_no_socket_to_others() -> None:
    """Its package lets everyone into the folders above the data, and where the path is too long for
    a socket, to the socket as well, which asks for no password."""
    with tempfile.TemporaryDirectory(prefix="assay-stack-", ignore_cleanup_errors=True) as scratch:
        Path(scratch).chmod(0o755)
        folder = Path(scratch) / ("long-" * 20) / "demo"
        folder.parent.mkdir()
        stack = Stack(folder)
        stack.make_folders()
        (folder / "secrets" / "key").write_text("secret")
        postgres = Postgres(stack.postgres)
        try:
            assert mode(folder) == 0o700
            assert mode(stack.postgres) == 0o700
            sockets = Path(postgres.socket_folder)
            assert sockets != stack.postgres
            assert mode(sockets) == 0o700
            postgres.create_database("mine", owner="keeper", creates_roles=True)
        finally:
            postgres.stop()
        stack.remove()
        assert list(folder.parent.iterdir()) == []


def test_what_an_earlier_version_left_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    (folder / "postgres").mkdir(parents=True)
    (folder / "postgres" / "PG_VERSION").write_text("18")
    stack = Stack(folder)
    stack.make_folders()
    assert (stack.postgres / "PG_VERSION").exists()
    assert not (folder / "postgres").exists()


def test_a_process_makes_files_that_only_its_user_reads(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "demo")
    stack.make_folders()
    stack.environment = dict(os.environ)
    stack._own = {"web": {}}
    made = tmp_path / "made"
    stack._spawn("maker", "web", sys.executable, "-c", f"open({str(made)!r}, 'w').write('x')")
    wait_until(lambda: made.exists() and bool(made.read_text()))
    stack.stop()
    assert mode(made) == 0o600
    assert mode(stack.logs / "maker.log") == 0o600


def test_a_second_start_finds_the_databases_of_the_first() -> None:
    # Not in pytest's folder, which PostgreSQL's user cannot enter.
    with tempfile.TemporaryDirectory(prefix="assay-stack-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        postgres = Postgres(folder / "postgres")
        try:
            for _ in range(2):
                postgres.create_database("mine", owner="keeper", creates_roles=True)
        finally:
            postgres.stop()
