"""A step of the demo that fails leaves the portal running, and says how to go on."""

from __future__ import annotations

import os
import re
import signal
import tempfile
from pathlib import Path

import httpx
import pytest

from tests.live.celery_worker import ROOT
from tests.live.preloaded import start
from tests.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.live
PROGRAM = """
import signal
import sys
from pathlib import Path
from rich.console import Console
from assay_demo import __main__ as demo
from assay_demo.client import Api
from assay.local.stack import Stack

def fails(stage):
    # As a call that gets no answer in time.
    Api("http://127.0.0.1:9")._http.get("datasets")

# A shell that runs the tests in the background has interrupts ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
folder = Path(sys.argv[1])
stack = Stack(folder, demo=True)
try:
    steps = (("queue", fails),)
    status = demo._run(Console(width=120), stack, folder, {}, check=False, steps=steps)
finally:
    stack.stop()
sys.exit(status)
"""


@pytest.mark.long
def test_the_portal_stays_up_after_a_step_that_failed() -> None:
    with tempfile.TemporaryDirectory(prefix="assay-demo-", ignore_cleanup_errors=True) as scratch:
        Path(scratch).chmod(0o755)
        log = Path(scratch) / "log"
        path = os.pathsep.join([str(ROOT), str(ROOT / "platform")])
        with log.open("ab") as output:
            process = start(
                ("-c", PROGRAM, str(Path(scratch) / "demo")), cwd=ROOT,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": path}, output=output,
            )  # fmt: skip
        try:
            wait_until(lambda: "stays up" in log.read_text() or process.poll() is not None, 240)
            said = " ".join(log.read_text().split())
            assert process.poll() is None, said
            assert "Step “queue” failed. GET /api/v1/datasets: " in said
            found = re.search(r"stays up at (http://127\.0\.0\.1:\d+)", said)
            assert found is not None
            # On a busy machine, the database may not answer the first check in time.
            wait_until(lambda: httpx.get(f"{found[1]}/readyz", timeout=30).status_code == 200)
            # Its personas sign in with one click.
            assert "Ada Admin" in httpx.get(f"{found[1]}/sign-in", timeout=30).text
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 1
            assert "The next run continues at this step" in log.read_text()
        finally:
            process.kill()
