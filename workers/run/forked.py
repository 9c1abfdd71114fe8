"""The beginning of a run in a process that was forked from one with its libraries."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import sys
from pathlib import Path

from workers.run.environment import environment_reduce
from workers.run.failures import lack_of_room
from workers.run.order import LOG_FILE
from workers.run.outcome import NO_ROOM

# The kernel ends the run, not its supervisor, when memory runs out.
_OUT_OF_MEMORY_SCORE = "500"


def run_forked(folder: str, group: str = "") -> None:
    """Run the order in `folder`, then exit with its status. Ends when the supervisor ends.

    All that it starts is in the control group whose folder is `group`; empty: that of its parent.
    """
    os.setsid()
    environment_reduce()
    try:
        log = os.open(Path(folder) / LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        os._exit(NO_ROOM if lack_of_room(error) else 1)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if group:
        Path(group, "cgroup.procs").write_text(str(os.getpid()))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OUT_OF_MEMORY_SCORE)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    from workers.run.process import end_process, end_with, run_folder

    supervisor = multiprocessing.parent_process()
    if supervisor is not None:
        end_with(int(supervisor.sentinel))
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # As in a process of its own.
    status = 1
    try:
        status = run_folder(Path(folder))
    finally:
        end_process(status)
