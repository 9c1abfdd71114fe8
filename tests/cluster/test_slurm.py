"""Runs of several processes: by torchrun on this machine, and as jobs of Slurm on two nodes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from governance.errors import InvalidInput
from registry.manifests import build_manifest
from tests.cluster.conftest import Cluster
from tests.waiting import wait_until
from workers.launchers.protocol import ProcessExit
from workers.launchers.slurm import SlurmLauncher
from workers.run.events import Checkpoint, EventReader, Metric
from workers.run.order import FineTuneWork, Order, Resources
from workers.run.outcome import STOPPED, Ending, Outcome, outcome_read

pytestmark = [pytest.mark.cluster, pytest.mark.torch]
STEPS = 40
# A run waits in Slurm's queue before it starts.
QUEUE_S = 600.0


def attempt(folder: Path, base: Path, resources: Resources, resume: Path | None = None) -> Path:
    """A folder with the order of a LoRA run on a few conversations."""
    inputs = folder / "inputs"
    (inputs / "data").mkdir(parents=True)
    shutil.copytree(base, inputs / "base")
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"What follows {number}?"},
                {"role": "assistant", "content": f"After {number} comes the next one."},
            ]
        }
        for number in range(48)
    ]
    (inputs / "data" / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "checkpoints").mkdir()
    if resume is not None:
        (inputs / "resume").mkdir()
        shutil.copytree(resume, inputs / "resume" / resume.name)
    Order(
        job=uuid.uuid4(),
        title="LoRA",
        attempt=1,
        fence=1,
        work=FineTuneWork(
            task="text-generation",
            method="lora",
            hyperparameters={"max_steps": STEPS, "batch_size": 2, "learning_rate": 0.01},
            base_digest="0" * 64,
        ),
        max_output_bytes=10**9,
        resources=resources,
        threads=1,
    ).write(folder)
    return folder


def said(folder: Path) -> str:
    log = folder / "log.txt"
    return log.read_text()[-3_000:] if log.exists() else ""


def adapter(folder: Path) -> str:
    """The digest of what a run that ended well delivers."""
    outcome = outcome_read(folder)
    assert isinstance(outcome, Outcome), said(folder)
    assert outcome.ending is Ending.DONE, outcome.sentence
    assert outcome.result["parameters"]["processes"] == 2
    return build_manifest(folder / "output").digest


def steps(folder: Path) -> int:
    return max([e.step for e in EventReader(folder).read() if isinstance(e, Metric)], default=0)


def started(folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "log.txt").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "workers.run", str(folder)], stdout=log, stderr=log
        )


def test_two_processes_of_one_machine_stop_with_a_checkpoint_and_resume_to_the_same_bytes(
    tiny: Path, tmp_path: Path
) -> None:
    two = Resources(devices=2)
    whole = attempt(tmp_path / "whole", tiny, two)
    assert started(whole).wait(600) == 0, said(whole)
    cut = attempt(tmp_path / "cut", tiny, two)
    process = started(cut)
    wait_until(lambda: steps(cut) >= 5, QUEUE_S)
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) == STOPPED, said(cut)
    made = [e for e in EventReader(cut).read() if isinstance(e, Checkpoint)][-1]
    kept = cut / "checkpoints" / made.name
    assert build_manifest(kept).to_json() == made.manifest
    again = attempt(tmp_path / "again", tiny, two, resume=kept)
    assert started(again).wait(600) == 0, said(again)
    assert adapter(again) == adapter(whole)


@pytest.fixture
def folder(cluster: Cluster) -> Path:
    """An empty folder on the cluster's shared file system."""
    return cluster.shared / str(uuid.uuid4())


def end_of(launcher: SlurmLauncher, handle: str) -> ProcessExit:
    found: list[ProcessExit] = []

    def over() -> bool:
        if (ended := launcher.poll(handle)) is not None:
            found.append(ended)
        return bool(found)

    wait_until(over, QUEUE_S)
    return found[0]


ISOLATION = """#!/bin/bash
srun --nodes=2 --ntasks-per-node=1 bash -c '
    touch /tmp/mine {data}/mine {repository}/mine 2>/dev/null
    echo $(hostname): $(ls {data}) $(ls /tmp | grep mine) $(ls /sys/class/net)
'
"""


def test_the_machines_share_one_folder_and_nothing_else(
    cluster: Cluster, launcher: SlurmLauncher, folder: Path
) -> None:
    folder.mkdir()
    data, repository = cluster.shared.parent, Path(__file__).parent
    script = folder / "isolation.sh"
    script.write_text(ISOLATION.format(data=data, repository=repository))
    output = folder / "output.txt"
    subprocess.run(
        ["sbatch", "--wait", "--nodes=2", f"--output={output}", str(script)], check=True, timeout=60
    )
    assert sorted(output.read_text().splitlines()) == [
        "n1: mine work mine eth0 lo",
        "n2: mine work mine eth0 lo",
    ]
    assert not any((place / "mine").exists() for place in (data, repository, Path("/tmp")))


def test_a_run_on_two_nodes_is_canceled_with_a_checkpoint_and_resumes(
    launcher: SlurmLauncher, tiny: Path, folder: Path
) -> None:
    two = Resources(nodes=2, minutes=10)
    cut = attempt(folder / "cut", tiny, two)
    handle = launcher.submit(cut, two)
    wait_until(lambda: steps(cut) >= 5, QUEUE_S)
    launcher.cancel(handle)
    end_of(launcher, handle)
    made = [e for e in EventReader(cut).read() if isinstance(e, Checkpoint)][-1]
    kept = cut / "checkpoints" / made.name
    assert build_manifest(kept).to_json() == made.manifest
    assert outcome_read(cut) is None, said(cut)
    again = attempt(folder / "again", tiny, two, resume=kept)
    handle = launcher.submit(again, two)
    assert end_of(launcher, handle).status == 0, said(again)
    assert len(adapter(again)) == 64


def test_a_job_that_the_cluster_can_never_run_is_refused_when_it_is_submitted(
    launcher: SlurmLauncher, tiny: Path, folder: Path
) -> None:
    many = Resources(nodes=3)
    attempt(folder, tiny, many)
    with pytest.raises(InvalidInput, match="can never run"):
        launcher.submit(folder, many)


def test_a_job_that_is_ended_from_outside_says_so(
    launcher: SlurmLauncher, tiny: Path, folder: Path
) -> None:
    one = Resources()
    attempt(folder, tiny, one)
    handle = launcher.submit(folder, one)
    launcher.cancel(handle, kill=True)
    assert end_of(launcher, handle) == ProcessExit(
        STOPPED, sentence="Slurm ended the run: CANCELED."
    )
