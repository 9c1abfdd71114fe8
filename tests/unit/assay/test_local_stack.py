"""Files and ports of the demo on a machine with other users."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path

from assay.local.services import Postgres
from assay.local.stack import Stack
from tests.unit.assay.gateway_support import wait_until


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_no_other_user_reads_data_uploads_or_logs(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    for name in ("data", "logs"):  # As an earlier version left them.
        (folder / name).mkdir(parents=True, mode=0o755)
    stack = Stack(folder)
    stack.make_folders()
    # As root, PostgreSQL's own user passes through.
    assert mode(folder) == (0o711 if os.geteuid() == 0 else 0o700)
    for name in ("data", "logs", "secrets", "uploads", "valkey"):
        assert mode(folder / name) == 0o700, name


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
