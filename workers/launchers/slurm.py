"""Launcher of runs as Slurm jobs: `sbatch` submits a script that is rendered from checked fields.

Work folders must be on a file system that the cluster's machines share with this worker.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from governance.errors import InvalidInput, Unavailable
from workers.launchers.protocol import ProcessExit, last_lines, out_of_memory
from workers.run.environment import run_environment
from workers.run.order import LOG_FILE, Resources
from workers.run.outcome import STOPPED

SCRIPT = "slurm.sh"
# Slurm sends SIGTERM this long before a job's time limit, so that it writes a checkpoint.
GRACE_S = 120
COMMAND_S = 30.0
# Slurm remembers an ended job for minutes; a job unknown to it for this long was removed.
LOST_S = 300.0
# A new attempt waits at most this long for canceled jobs of earlier attempts to end.
CANCELED_S = 60.0
_OVER = re.compile("Invalid job id|already completing or completed|already finished")
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
# States of jobs that Slurm or an operator ended; a later attempt resumes from the checkpoint.
_STOPPED = frozenset({"CANCELLED", "PREEMPTED", "TIMEOUT", "DEADLINE", "REVOKED"})
# States of a requeued job until the processes of its first run have ended.
_ENDING = frozenset({"COMPLETING", "REQUEUED", "SIGNALING", "STAGE_OUT"})
# Slurm sends the signal up to this long before it is due.
_EARLY_S = 60
_DURATION = re.compile(r"(?:(\d+)-)?(\d+):(\d\d):(\d\d)")


@dataclass(frozen=True, slots=True)
class SlurmSettings:
    """The operator's description of the cluster.

    `python` is the interpreter on its machines; `partition` and `account` may be empty; `gpus` is
    false if devices are processes on CPUs; `port` is the rendezvous port of runs on several
    machines.
    """

    python: str
    partition: str = ""
    account: str = ""
    gpus: bool = False
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
        InvalidInput: the folder's path cannot be used in a script.
    """
    if not _PATH.fullmatch(str(folder)):
        raise InvalidInput("The path of the working folder has characters that Slurm replaces.")
    options = {
        "job-name": _job_name(folder),
        "nodes": resources.nodes,
        "ntasks-per-node": 1,
        "output": folder / LOG_FILE,
        "open-mode": "append",
        "signal": f"TERM@{GRACE_S}",
        "gpus-per-node" if settings.gpus else "cpus-per-task": resources.devices,
        "mem": None if resources.memory_gib is None else f"{resources.memory_gib}G",
        "time": resources.minutes,
        "partition": settings.partition,
        "account": settings.account,
    }
    # `--requeue` allows `scontrol requeue`, and keeps a lost node from ending the job.
    lines = ["#!/bin/bash", "#SBATCH --requeue"]
    lines += [
        f"#SBATCH --{name}={shlex.quote(str(value))}"
        for name, value in options.items()
        if value not in (None, "")
    ]
    # A second run of the job would write under the claim of the first. `poll` ends a requeued job;
    # the next attempt has a new claim and a new job, and resumes from the checkpoint.
    lines.append(f'[ "${{SLURM_RESTART_COUNT:-0}}" = 0 ] || exit {STOPPED}')
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
        # Machines may not be able to resolve a node's name.
        lines += [
            'first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
            'head=$(scontrol show node "$first" | grep -o "NodeAddr=[^ ]*" | cut -d= -f2)',
        ]
    # Slurm signals the processes of the run. The shell only waits: srun would kill them on SIGTERM.
    lines += ["trap : TERM", command]
    return "\n".join(lines) + "\n"


def _job_name(folder: Path) -> str:
    """Return the job name that people see in Slurm, from the folder <job>/<fence>."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", f"assay-{folder.parent.name}-{folder.name}")[:120]


@dataclass(frozen=True, slots=True)
class _Job:
    """A job in Slurm. `state` is empty if Slurm does not know the job; `restarts` counts requeues;
    `limit` is the job's time limit in Slurm's notation if it is used up, else empty."""

    state: str
    status: int = 1
    restarts: int = 0
    limit: str = ""


class SlurmLauncher:
    """Implements `workers.launchers.protocol.Launcher`."""

    poll_s = 2.0

    def __init__(self, settings: SlurmSettings) -> None:
        self._settings = settings
        self._folders: dict[str, Path] = {}
        self._seen: dict[str, float] = {}
        self._working: set[str] = set()

    def submit(self, folder: Path, resources: Resources) -> str:
        """Submit the run. Raises Unavailable, and InvalidInput if Slurm can never run it."""
        script = folder / SCRIPT
        repeated = script.exists()
        script.write_text(slurm_script(folder.absolute(), resources, self._settings))
        # The job may exist even though the answer to an earlier call was lost.
        handle = _submitted(folder.absolute()) if repeated else ""
        output = handle or _command("sbatch", "--parsable", str(script.absolute()))
        handle = output.strip().partition(";")[0]
        if not _JOB.fullmatch(handle):
            raise Unavailable(f"sbatch answered {output[:80]!r}, which is not a job ID.")
        self._folders[handle], self._seen[handle] = folder, time.monotonic()
        return handle

    def poll(self, handle: str) -> ProcessExit | None:
        """Return the end of the job by `scontrol`, or by `sacct` if accounting is on.

        A job that Slurm has requeued is canceled and counts as stopped.
        """
        try:
            job = self._job(handle)
            if job.restarts and job.state not in _ENDING:
                _command("scancel", handle, accept=_OVER)
                return ProcessExit(STOPPED, sentence="Slurm requeued the run.")
        except Unavailable:
            return None
        if job.state in _RUNNING:
            self._seen[handle] = time.monotonic()
            if job.state == "RUNNING":
                self._working.add(handle)
            return None
        if not job.state:
            if time.monotonic() - self._seen[handle] < LOST_S:
                return None
            return ProcessExit(1, "Slurm no longer knows the job")
        return _ended(job)

    def works(self, handle: str) -> bool:
        """Return whether Slurm has started the job, as of the last `poll`."""
        return handle in self._working

    def cancel(self, handle: str, *, kill: bool = False) -> None:
        """Send SIGTERM to the job's processes; with `kill`, end the job.

        A job that waits in Slurm's queue has no processes and is ended immediately.

        Raises:
            Unavailable: Slurm did not answer.
        """
        waits = not kill and self._job(handle).state == "PENDING"
        options = () if kill or waits else ("--signal=TERM",)
        _command("scancel", *options, handle, accept=_OVER)

    def end_earlier(self, folder: Path) -> None:
        """Cancel the jobs of lower fences and wait for their end. Raises Unavailable."""
        deadline = time.monotonic() + CANCELED_S
        while earlier := _earlier(folder.absolute()):
            if time.monotonic() > deadline:
                raise Unavailable(f"Slurm still runs an earlier attempt: job {earlier[0]}.")
            _command("scancel", *earlier, accept=_OVER)
            time.sleep(self.poll_s)

    def runs(self) -> dict[str, Path]:
        """Return the folders of runs that wait or work in Slurm. Raises Unavailable."""
        return _listed()

    def logs(self, handle: str) -> str:
        """Return the last lines of the job's output."""
        return last_lines(self._folders[handle])

    def forget(self, handle: str) -> None:
        """Drop the state of a job that is over."""
        self._folders.pop(handle, None)
        self._seen.pop(handle, None)
        self._working.discard(handle)

    def _job(self, handle: str) -> _Job:
        """Return Slurm's record of the job. Raises Unavailable if Slurm does not answer."""
        output = _command("scontrol", "--oneliner", "show", "job", handle, accept=_OVER)
        fields = dict(part.partition("=")[::2] for part in output.split() if "=" in part)
        if state := fields.get("JobState", ""):
            restarts = fields.get("Restarts", "")
            return _Job(
                state,
                _status(fields.get("ExitCode", "")),
                int(restarts) if restarts.isdecimal() else 0,
                _used_up(fields.get("RunTime", ""), fields.get("TimeLimit", "")),
            )
        output = _accounted(
            "sacct", "--noheader", "--parsable2", "--allocations",
            "--format=State,ExitCode", "--jobs", handle,
        )  # fmt: skip
        state, _, code = output.strip().partition("|")
        return _Job(state.split(" ")[0], _status(code))


def _ended(job: _Job) -> ProcessExit:
    """Return the end of a job that is over."""
    limit = f"The run reached its time limit of {job.limit} in Slurm." if job.limit else ""
    if job.state == "COMPLETED":
        return ProcessExit(0, sentence=limit)
    if job.state in _STOPPED:
        return ProcessExit(STOPPED, sentence=limit or f"Slurm ended the run: {job.state}.")
    if job.state == "OUT_OF_MEMORY":
        return out_of_memory("Slurm")
    if job.status == STOPPED:
        return ProcessExit(STOPPED, sentence=limit)
    return ProcessExit(job.status or 1, f"the state {job.state} in Slurm")


def _used_up(run_time: str, limit: str) -> str:
    """Return the limit if a job ran so long that Slurm sent SIGTERM because of it; else empty."""
    elapsed, allowed = _seconds(run_time), _seconds(limit)
    return limit if elapsed and allowed and elapsed >= allowed - GRACE_S - _EARLY_S else ""


def _seconds(duration: str) -> int:
    """Return a duration in Slurm's notation in seconds; 0 for UNLIMITED and the like."""
    if not (match := _DURATION.fullmatch(duration)):
        return 0
    days, hours, minutes, seconds = (int(each or 0) for each in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _status(code: str) -> int:
    """Return the exit status in Slurm's `status:signal`."""
    status, _, number = code.partition(":")
    if number.isdecimal() and int(number):
        return -int(number)
    return int(status) if status.isdecimal() else 1


def _submitted(folder: Path) -> str:
    """Return the ID of this attempt's job in Slurm; empty if it has none. Raises Unavailable."""
    return next((handle for handle, other in _listed().items() if other == folder), "")


def _earlier(folder: Path) -> list[str]:
    """Return the IDs of Slurm jobs for lower fences of the same job. Raises Unavailable."""
    return [
        handle
        for handle, other in _listed().items()
        if other.parent == folder.parent
        and other.name.isdecimal()
        and int(other.name) < int(folder.name)
    ]


def _listed() -> dict[str, Path]:
    """Return the folders of waiting and working runs in Slurm by job ID. Raises Unavailable.

    The path of its script identifies a run's attempt, even if the answer of `sbatch` was lost.
    """
    output = _command("squeue", "--noheader", f"--user={os.getuid()}", "--format=%i|%o")
    rows = (line.strip().partition("|") for line in output.splitlines())
    return {handle: Path(path).parent for handle, _, path in rows if Path(path).name == SCRIPT}


def _accounted(*command: str) -> str:
    """Return the output of an accounting command; empty if accounting is off or does not answer."""
    try:
        return _command(*command)
    except (InvalidInput, Unavailable):
        return ""


def _command(*command: str, accept: re.Pattern[str] | None = None) -> str:
    """Return the output of a Slurm command; a failure whose message `accept` matches is ignored.

    Raises:
        InvalidInput: sbatch permanently refused the job.
        Unavailable: the command failed, or did not answer.
    """
    try:
        process = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
            # sbatch passes its environment on to the job, where other users may read it.
            env=run_environment(os.environ),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]} did not answer: {error}.") from error
    if process.returncode:
        message = " ".join(process.stderr.split())[:500]
        if accept and accept.search(message):
            return process.stdout
        never = "Requested node configuration is not available" in message or "Invalid" in message
        if never and command[0] == "sbatch":
            raise InvalidInput(f"The cluster can never run this job: {message}")
        raise Unavailable(f"{command[0]} failed: {message}")
    return process.stdout
