"""Tokens per second with governance, against the same workers without governance.

The subject is everything that a customer uses: key, policy, quotas, ledger, audit. The reference is
`benchmarks.ungoverned`, which sends the same chats to the same engine worker without these. Rounds
take turns.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from assay.local.services import free_port
from assay.local.stack import Stack
from benchmarks.gateway import ROOT, until_works
from benchmarks.stack import CONCURRENCY, demo_stack, deploy_base, through_the_stack
from benchmarks.table import Row, show


@contextmanager
def ungoverned(stack: Stack) -> Iterator[str]:
    """Serve the reference next to a stack's web process, with the same users of database and
    broker; yield its URL."""
    port = free_port()
    command = (sys.executable, "-m", "uvicorn", "benchmarks.ungoverned:application")
    options = ("--port", str(port), "--log-level", "warning", "--no-access-log")
    environment = stack.environment_of("web")
    with subprocess.Popen([*command, *options], cwd=ROOT, env=environment) as process:
        try:
            until_works(lambda: socket.create_connection(("127.0.0.1", port)).close() is None)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def run(*, rounds: int) -> list[Row]:
    """Start a separate stack, measure, and stop it."""
    rows = []
    with demo_stack() as stage:
        key = deploy_base(stage)
        with ungoverned(stage.stack) as reference:
            for streams in CONCURRENCY:
                ours, theirs = [], []
                for number in range(rounds + 1):
                    for rates, url in ((theirs, reference), (ours, stage.stack.url)):
                        rate = asyncio.run(through_the_stack(url, key, streams))
                        if number:  # The first round warms both up.
                            rates.append(rate)
                rows.append(Row.of(f"{streams} concurrent streams", "tokens/s", ours, theirs))
    return rows


if __name__ == "__main__":
    show(
        "Key, policy, quotas, ledger and audit",
        "none of them",
        run(rounds=1 if "--quick" in sys.argv else 5),
    )
