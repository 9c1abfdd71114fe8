"""The batch script of a run: rendered from checked fields, each value quoted."""

from __future__ import annotations

import os
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from governance.errors import InvalidInput, Unavailable
from tests.unit.workers.test_run import Folders, Recorder
from workers.broker import node_client
from workers.celery_tasks.jobs import work_folder
from workers.control.jobs import Claim, HeartbeatReply, LeaseLost
from workers.launchers.protocol import ProcessExit, out_of_memory
from workers.launchers.slurm import SlurmLauncher, SlurmSettings, slurm_script
from workers.remote.identity import Identity, identity_write
from workers.run.order import Resources
from workers.run.outcome import STOPPED
from workers.supervision.supervisor import Supervisor

SETTINGS = SlurmSettings(python="/opt/assay/bin/python", partition="gpu", account="ml", gpus=True)


def test_a_run_of_several_machines_meets_at_the_first_one() -> None:
    script = slurm_script(
        Path("/shared/work/a/1"),
        Resources(nodes=2, devices=4, memory_gib=64, minutes=90),
        SETTINGS,
    )
    lines = script.splitlines()
    assert {
        "#SBATCH --nodes=2",
        "#SBATCH --gpus-per-node=4",
        "#SBATCH --mem=64G",
        "#SBATCH --time=90",
        "#SBATCH --partition=gpu",
        "#SBATCH --account=ml",
        "#SBATCH --requeue",
        "#SBATCH --output=/shared/work/a/1/log.txt",
    } <= set(lines)
    [run] = [line for line in lines if line.startswith("srun ")]
    assert "--nnodes=2 --nproc-per-node=4" in run
    assert "--rdzv-backend=c10d" in run
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_a_run_of_one_process_needs_no_meeting_place() -> None:
    script = slurm_script(Path("/work/1"), Resources(), SlurmSettings(python="/usr/bin/python3"))
    assert "srun /usr/bin/python3 -m workers.run /work/1\n" in script
    assert "torch.distributed" not in script
    assert "--partition" not in script
    assert "#SBATCH --cpus-per-task=1\n" in script
    assert "gpus" not in script


def test_a_job_that_slurm_starts_again_does_no_work(tmp_path: Path) -> None:
    (tmp_path / "srun").write_text(f"#!/bin/sh\ntouch {tmp_path}/worked\n")
    (tmp_path / "srun").chmod(0o700)
    script = slurm_script(Path("/work/1"), Resources(), SETTINGS)
    for restarts, worked in (("1", False), ("0", True)):
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_RESTART_COUNT": restarts}
        done = subprocess.run(["bash"], input=script, text=True, env=environment, check=False)
        assert done.returncode == (0 if worked else STOPPED)
        assert (tmp_path / "worked").exists() is worked


def test_values_are_quoted_for_the_shell() -> None:
    script = slurm_script(Path("/work/a; touch x"), Resources(), SETTINGS)
    assert "-m workers.run '/work/a; touch x'\n" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize("path", ["/work/a\n#SBATCH --uid=0", "/work/%u", "relative", "/a\\b"])
def test_paths_that_slurm_or_the_shell_would_change_are_refused(path: str) -> None:
    with pytest.raises(InvalidInput):
        slurm_script(Path(path), Resources(), SETTINGS)


@pytest.mark.parametrize(
    "given",
    [
        {"partition": "gpu --uid=0"},
        {"account": "a\nb"},
        {"python": "python"},
        {"port": 80},
    ],
)
def test_settings_that_could_change_the_script_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        SlurmSettings(**{"python": "/usr/bin/python3", **given})  # type: ignore[arg-type]


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that stand for Slurm's commands, first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def command(slurm: Path, name: str, script: str) -> None:
    program = slurm / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)


def test_slurm_gets_no_secret_of_the_worker(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://assay:hunter2@db/assay")
    monkeypatch.setenv("HF_TOKEN", "hunter2")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth1")
    command(slurm, "sbatch", f"env > {tmp_path}/environment; echo 7")
    assert SlurmLauncher(SETTINGS).submit(tmp_path, Resources()) == "7"
    environment = (tmp_path / "environment").read_text()
    assert "hunter2" not in environment
    assert "NCCL_SOCKET_IFNAME=eth1" in environment


def test_a_controller_that_is_away_ends_no_run(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.launchers.slurm.LOST_S", 0.0)
    command(slurm, "sbatch", "echo 7")
    command(slurm, "sacct", "exit 1")
    launcher = SlurmLauncher(SETTINGS)
    handle = launcher.submit(tmp_path, Resources())
    command(slurm, "scontrol", "echo 'Unable to contact slurm controller' >&2; exit 1")
    assert launcher.poll(handle) is None
    command(slurm, "scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    ended = launcher.poll(handle)
    assert ended is not None
    assert ended.status == 1


def test_a_cancel_that_slurm_does_not_answer_is_an_error(slurm: Path, tmp_path: Path) -> None:
    launcher = SlurmLauncher(SETTINGS)
    command(slurm, "scancel", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(Unavailable):
        launcher.cancel("7", kill=True)
    command(slurm, "scancel", "echo 'error: Invalid job id 7' >&2; exit 1")
    launcher.cancel("7", kill=True)


def test_a_run_works_once_slurm_has_found_machines(slurm: Path, tmp_path: Path) -> None:
    command(slurm, "sbatch", "echo 7")
    launcher = SlurmLauncher(SETTINGS)
    handle = launcher.submit(tmp_path, Resources())
    for state, works in (("PENDING", False), ("RUNNING", True)):
        command(slurm, "scontrol", f"echo 'JobId=7 JobState={state} ExitCode=0:0'")
        assert launcher.poll(handle) is None
        assert launcher.works(handle) is works


def test_runs_of_earlier_attempts_are_canceled_before_the_next_one(
    slurm: Path, tmp_path: Path
) -> None:
    listed = tmp_path / "listed"
    folders = ("job/1", "job/3", "other/1", "job/12", "x")
    lines = [f"{5 + i}|{tmp_path}/{each}/slurm.sh\n" for i, each in enumerate(folders)]
    listed.write_text("".join([*lines, "10|/bin/bash\n", "11|(null)\n"]))
    command(slurm, "squeue", f"cat {listed}")
    command(slurm, "scancel", f'echo "$@" >> {tmp_path}/canceled; : > {listed}')
    SlurmLauncher(SETTINGS).end_earlier(tmp_path / "job" / "3")
    assert (tmp_path / "canceled").read_text() == "5\n"


def test_a_job_whose_submission_was_not_answered_is_not_submitted_twice(
    slurm: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "job" / "3"
    folder.mkdir(parents=True)
    command(slurm, "sbatch", f"echo x >> {tmp_path}/submitted; exit 1")
    command(slurm, "squeue", f"echo '5|{tmp_path}/job/1/slurm.sh'")
    launcher = SlurmLauncher(SETTINGS)
    for _ in range(2):
        with pytest.raises(Unavailable):
            launcher.submit(folder, Resources())
    command(slurm, "squeue", f"echo '6|{folder}/slurm.sh'")
    assert launcher.submit(folder, Resources()) == "6"
    assert (tmp_path / "submitted").read_text() == "x\nx\n"


class Held(Recorder):
    """A control plane where jobs have one attempt, with fence 2, that a worker holds."""

    def report(self, claim: Claim, *_: Any) -> HeartbeatReply:
        if claim.fence != 2:
            raise LeaseLost("no longer held")
        return self.heartbeat(claim)


def test_a_job_that_was_canceled_before_its_submission_was_answered_is_ended_in_slurm(
    slurm: Path, tmp_path: Path
) -> None:
    work, job = tmp_path / "work", str(uuid.uuid4())
    lost = work / job / "1"
    lost.mkdir(parents=True)
    # The job is there, and the answer is lost.
    command(slurm, "sbatch", f'echo "5|$2" > {tmp_path}/listed; exit 1')
    command(slurm, "squeue", f"cat {tmp_path}/listed")
    command(slurm, "scancel", f'[ "$1" = 5 ] || exit 1; echo "$@" >> {tmp_path}/canceled')
    launcher = SlurmLauncher(SETTINGS)
    with pytest.raises(Unavailable):
        launcher.submit(lost, Resources())
    submitted = (tmp_path / "listed").read_text()
    with (tmp_path / "listed").open("w") as listed:
        listed.write(f"4|{work}/{uuid.uuid4()}/1/slurm.sh\n")  # It cannot be canceled.
        listed.write(submitted)
        listed.write(f"6|{work}/{job}/2/slurm.sh\n")  # A worker holds it.
        listed.write(f"7|/elsewhere/work/{job}/1/slurm.sh\n")  # Of another installation.
        listed.write(f"8|{work}/by-hand/slurm.sh\n")
        listed.write(f"9|{work}/gpu-2/{job}/1/slurm.sh\n")  # Of a node.
    Supervisor(Held(), Folders(tmp_path), launcher).end_lost(work)
    assert (tmp_path / "canceled").read_text() == "5\n"


def test_a_node_has_a_folder_of_runs_of_its_own(settings: Any, tmp_path: Path) -> None:
    settings.DATA_DIR, settings.NODE_URL = tmp_path, ""
    assert work_folder() == tmp_path / "work"
    identity_write(tmp_path / "key", Identity("gpu-1", Ed25519PrivateKey.generate()))
    settings.NODE_URL, settings.NODE_KEY_FILE = "https://assay.example", str(tmp_path / "key")
    node_client.cache_clear()
    try:
        assert work_folder() == tmp_path / "work" / "gpu-1"
    finally:
        node_client.cache_clear()


def test_a_requeued_job_has_stopped_once_its_processes_have_ended(
    slurm: Path, tmp_path: Path
) -> None:
    command(slurm, "sbatch", "echo 7")
    command(slurm, "scancel", f'echo "$@" >> {tmp_path}/canceled')
    launcher = SlurmLauncher(SETTINGS)
    handle = launcher.submit(tmp_path, Resources())
    command(slurm, "scontrol", "echo 'JobId=7 JobState=COMPLETING Restarts=1 ExitCode=0:0'")
    assert launcher.poll(handle) is None
    assert not (tmp_path / "canceled").exists()
    command(slurm, "scontrol", "echo 'JobId=7 JobState=PENDING Restarts=1 ExitCode=0:0'")
    assert launcher.poll(handle) == ProcessExit(STOPPED, sentence="Slurm requeued the run.")
    assert (tmp_path / "canceled").read_text() == "7\n"


LIMIT = "The run reached its time limit of 1-00:10:00 in Slurm."


@pytest.mark.parametrize(
    ("job", "ended"),
    [
        ("TIMEOUT ExitCode=0:15", ProcessExit(STOPPED, sentence=LIMIT)),
        ("FAILED ExitCode=75:0", ProcessExit(STOPPED, sentence=LIMIT)),
        ("COMPLETED ExitCode=0:0", ProcessExit(0, sentence=LIMIT)),
        ("FAILED ExitCode=3:0", ProcessExit(3, "the state FAILED in Slurm")),
        ("OUT_OF_MEMORY ExitCode=0:125", out_of_memory("Slurm")),
    ],
)
def test_a_run_that_slurm_told_to_end_names_the_time_limit(
    slurm: Path, tmp_path: Path, job: str, ended: ProcessExit
) -> None:
    command(slurm, "sbatch", "echo 7")
    launcher = SlurmLauncher(SETTINGS)
    handle = launcher.submit(tmp_path, Resources())
    times = "RunTime=1-00:08:02 TimeLimit=1-00:10:00"
    command(slurm, "scontrol", f"echo 'JobId=7 JobState={job} Restarts=0 {times}'")
    assert launcher.poll(handle) == ended


def test_a_run_that_ends_early_names_no_time_limit(slurm: Path, tmp_path: Path) -> None:
    command(slurm, "sbatch", "echo 7")
    launcher = SlurmLauncher(SETTINGS)
    handle = launcher.submit(tmp_path, Resources())
    for times in ("RunTime=00:08:02 TimeLimit=01:00:00", "RunTime=00:08:02 TimeLimit=UNLIMITED"):
        command(slurm, "scontrol", f"echo 'JobId=7 JobState=COMPLETED ExitCode=0:0 {times}'")
        assert launcher.poll(handle) == ProcessExit(0)
