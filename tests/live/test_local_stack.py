"""The stack of `./demo` and of the benchmarks, with the secrets that each process uses."""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from assay.local.stack import Stack
from tests.waiting import wait_until

pytestmark = pytest.mark.live


def open_to_others(folder: Path) -> Iterator[Path]:
    """Paths that another user of this machine can list or read, of the group or not."""
    for path in folder.iterdir():
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            continue
        if not stat.S_ISDIR(mode):
            if mode & 0o066:
                yield path
        elif mode & 0o011:
            yield path
            yield from open_to_others(path)


def test_every_process_of_the_local_stack_starts() -> None:
    # Not in pytest's folder: as root, PostgreSQL runs as a user who may not enter that one.
    with tempfile.TemporaryDirectory(prefix="assay-stack-", ignore_cleanup_errors=True) as scratch:
        Path(scratch).chmod(0o755)
        folder = Path(scratch) / "demo"
        stack = Stack(folder)
        try:
            stack.start(lambda text: None)
            # On a busy machine, the database may not answer the first check in time.
            wait_until(lambda: httpx.get(f"{stack.url}/readyz").status_code == 200)
            for name in ("compute-worker", "engine-worker"):
                log = folder / "logs" / f"{name}.log"
                wait_until(lambda log=log: b" ready." in log.read_bytes())
            stack.check_alive()
            assert sum(1 for _ in folder.rglob("*")) > 100
            assert list(open_to_others(Path(scratch))) == []
            # Nor would it be with an open folder above it.
            folder.chmod(0o755)
            secret = {name for path in open_to_others(folder) for name in [path.name]}
            assert not secret & {"secrets", "data", "valkey", "uploads", "logs"}
            assert list(open_to_others(folder / "secrets")) == []
        finally:
            stack.stop()
