"""Files and ports of the demo on a machine with other users."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

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
