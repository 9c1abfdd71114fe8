"""Runs as jobs of Slurm: `sbatch` submits a script that is rendered from checked fields.

Work folders must lie on a file system that the cluster's machines share with this worker.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from governance.errors import InvalidInput, Unavailable
from workers.launchers.protocol import Ended, last_lines
from workers.run.environment import run_environment
from workers.run.order import LOG_FILE, Resources
from workers.run.outcome import STOPPED

SCRIPT = "slurm.sh"
# Slurm sends SIGTERM this long before a job's time is up, so that it writes a checkpoint.
GRACE_S = 120
COMMAND_S = 30.0
# A job that is over stays in `squeue` for minutes; one that neither knows was removed.
LOST_S = 300.0
_JOB = re.compile(r"[0-9]{1,12}")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_PATH = re.compile(r"/[^\x00-\x1f\x7f%\\]{1,1000}")
_RUNNING = frozenset(
    {
        "PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "STAGE_OUT", "SUSPENDED", "REQUEUED",
        "RESIZING", "SIGNALING", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD", "STOPPED",
        "REQUEUE_FED",
    }
)  # fmt: skip
# Ended from outside: a later attempt resumes from its checkpoint.
_STOPPED = frozenset({"CANCELLED", "PREEMPTED", "TIMEOUT", "DEADLINE", "REVOKED"})


@dataclass(frozen=True, slots=True)
class SlurmSettings:
    """The cluster as the operator describes it.

    `python` is the interpreter on its machines; `partition` and `account` may be empty;
    `gpus` is false where a device is a process on CPUs; `port` is where the processes of several
    machines meet.
    """

    python: str
    partition: str = ""
    account: str = ""
    gpus: bool = True
    port: int = 29_400

    def __post_init__(self) -> None:
        for name in ("partition", "account"):
            value = getattr(self, name)
            if value and not _NAME.fullmatch(value):
                raise InvalidInput(f"{value[:80]!r} is not the name of a {name}.")
        if not _PATH.fullmatch(self.python):
            raise InvalidInput(f"{self.python[:80]!r} is not the path of an interpreter.")
        if not 1024 <= self.port <= 65_535:
            raise InvalidInput(f"{self.port} is not a port from 1024 to 65535.")


def slurm_script(folder: Path, resources: Resources, settings: SlurmSettings) -> str:
    """Return the batch script of a run.

    Raises:
        InvalidInput: the folder's path cannot stand in a script.
    """
    if not _PATH.fullmatch(str(folder)):
        raise InvalidInput("The path of the working folder has characters that Slurm replaces.")
    options = {
        "job-name": "assay-run",
        "nodes": resources.nodes,
        "ntasks-per-node": 1,
        "output": folder / LOG_FILE,
        "open-mode": "append",
        "signal": f"TERM@{GRACE_S}",
        # A job that Slurm runs again by itself would be a second run under one fence.
        "no-requeue": None,
        "gpus-per-node" if settings.gpus else "cpus-per-task": resources.devices,
        "mem": None if resources.memory_gib is None else f"{resources.memory_gib}G",
        "time": resources.minutes,
        "partition": settings.partition,
        "account": settings.account,
    }
    lines = ["#!/bin/bash"]
    for name, value in options.items():
        if name == "no-requeue":
            lines.append("#SBATCH --no-requeue")
        elif value not in (None, ""):
            lines.append(f"#SBATCH --{name}={shlex.quote(str(value))}")
    python, run = shlex.quote(settings.python), shlex.quote(str(folder))
    if resources.processes == 1:
        command = f"srun {python} -m workers.run {run}"
    else:
        command = (
            f"srun {python} -m torch.distributed.run --nnodes={resources.nodes} "
            f"--nproc-per-node={resources.devices} --rdzv-id=$SLURM_JOB_ID "
            f'--rdzv-backend=c10d --rdzv-endpoint="$head:{settings.port}" '
            f"-m workers.run {run}"
        )
        # A node's name need not be one that machines can look up.
        lines += [
            'first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            'head=$(scontrol show node "$first" | grep -o "NodeAddr=[^ ]*" | cut -d= -f2)',
        ]
    # Slurm signals the processes of the run. The shell only waits: srun would kill them on SIGTERM.
    lines += ["trap : TERM", command]
    return "\n".join(lines) + "\n"


class SlurmLauncher:
    """Implements `workers.launchers.protocol.Launcher`."""

    poll_s = 2.0

    def __init__(self, settings: SlurmSettings) -> None:
        self._settings = settings
        self._folders: dict[str, Path] = {}
        self._seen: dict[str, float] = {}

    def submit(self, folder: Path, resources: Resources) -> str:
        """Submit the run. Raises Unavailable, and InvalidInput when Slurm can never run it."""
        script = folder / SCRIPT
        script.write_text(slurm_script(folder.absolute(), resources, self._settings))
        said = _command("sbatch", "--parsable", str(script))
        handle = said.strip().partition(";")[0]
        if not _JOB.fullmatch(handle):
            raise Unavailable(f"sbatch answered {said[:80]!r}, which is no job ID.")
        self._folders[handle], self._seen[handle] = folder, time.monotonic()
        return handle

    def poll(self, handle: str) -> Ended | None:
        """Return how the job ended, by `squeue` and then `sacct`, where accounting is on."""
        try:
            state, status = self._state(handle)
        except Unavailable:
            return None
        if state in _RUNNING:
            self._seen[handle] = time.monotonic()
            return None
        if not state:
            if time.monotonic() - self._seen[handle] < LOST_S:
                return None
            return Ended(1, "Slurm knows nothing of the job any more")
        if state == "COMPLETED":
            return Ended(0)
        if state in _STOPPED:
            return Ended(STOPPED)
        if state == "OUT_OF_MEMORY":
            return Ended(-signal.SIGKILL)
        return Ended(status or 1, f"the state {state} in Slurm")

    def cancel(self, handle: str, *, kill: bool = False) -> None:
        """Send SIGTERM to the job's processes; with `kill`, end the job, a waiting one too."""
        options = () if kill else ("--signal=TERM",)
        _command("scancel", *options, handle, check=False)

    def logs(self, handle: str) -> str:
        """Return the last lines of the job's output."""
        return last_lines(self._folders[handle])

    def forget(self, handle: str) -> None:
        """Drop what is kept of a job that is over."""
        self._folders.pop(handle, None)
        self._seen.pop(handle, None)

    def _state(self, handle: str) -> tuple[str, int]:
        """Return the job's state and exit status; no state when Slurm does not know it."""
        said = _command("scontrol", "--oneliner", "show", "job", handle, check=False)
        fields = dict(part.partition("=")[::2] for part in said.split() if "=" in part)
        if state := fields.get("JobState", ""):
            return state, _status(fields.get("ExitCode", ""))
        said = _command(
            "sacct", "--noheader", "--parsable2", "--allocations",
            "--format=State,ExitCode", "--jobs", handle, check=False,
        )  # fmt: skip
        state, _, code = said.strip().partition("|")
        return state.split(" ")[0], _status(code)


def _status(code: str) -> int:
    """Return the exit status in Slurm's `status:signal`."""
    status, _, number = code.partition(":")
    if number.isdecimal() and int(number):
        return -int(number)
    return int(status) if status.isdecimal() else 1


def _command(*command: str, check: bool = True) -> str:
    """Return what a command of Slurm prints. Raises Unavailable and InvalidInput."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
            # sbatch hands its environment on to the job, where other users may read it.
            env=run_environment(os.environ),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]} did not answer: {error}.") from error
    if check and done.returncode:
        said = " ".join(done.stderr.split())[:500]
        if "Requested node configuration is not available" in said or "Invalid" in said:
            raise InvalidInput(f"The cluster can never run this job: {said}")
        raise Unavailable(f"{command[0]} failed: {said}")
    return done.stdout
