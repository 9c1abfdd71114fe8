"""The stack of `./demo` and of the benchmarks, with the secrets that each process uses."""

from __future__ import annotations

import tempfile
from pathlib import Path

import httpx
import pytest

from assay.local.stack import Stack
from tests.live.celery_worker import until

pytestmark = pytest.mark.live


def test_every_process_of_the_local_stack_starts() -> None:
    # Not in pytest's folder: as root, PostgreSQL runs as a user who may not enter that one.
    with tempfile.TemporaryDirectory(prefix="assay-stack-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        stack = Stack(folder)
        try:
            stack.start(lambda text: None)
            assert httpx.get(f"{stack.url}/readyz").status_code == 200
            for name in ("compute-worker", "engine-worker"):
                log = folder / "logs" / f"{name}.log"
                until(lambda log=log: b" ready." in log.read_bytes())
            stack.check_alive()
        finally:
            stack.stop()
