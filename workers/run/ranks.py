"""A run of several processes: torchrun starts them, rank 0 reports and delivers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from workers.run.order import Order

_POLL_S = 0.1


def rank() -> int:
    """Return this process's number among the processes of the run."""
    return int(os.environ.get("RANK", "0"))


def started_by_torchrun() -> bool:
    """Return whether this process is one of several that torchrun started."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def torchrun(devices: int) -> list[str]:
    """Return the beginning of the command that starts a process for each device of one machine."""
    return [
        sys.executable, "-m", "torch.distributed.run",
        "--standalone", "--nproc-per-node", str(devices),
    ]  # fmt: skip


def run_ranks(folder: Path, order: Order, stop: threading.Event) -> int:
    """Run `folder` with one process for each device of the order; return torchrun's exit status.

    When `stop` is set, torchrun gets SIGTERM and passes it on to its processes.
    """
    threads = max(1, (order.threads or os.cpu_count() or 1) // order.resources.devices)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [*torchrun(order.resources.devices), "-m", "workers.run", str(folder)]
    with subprocess.Popen(command, env=environment) as process:
        terminated = False
        while True:
            try:
                return process.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                if stop.is_set() and not terminated:
                    terminated = True
                    process.terminate()
