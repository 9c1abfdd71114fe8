"""A cluster of Slurm on this machine: a controller and two nodes. `./test --cluster` runs these."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.workers.conftest import smollm2 as smollm2
from tests.unit.workers.conftest import tiny as tiny

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
CONFIGURATION = """
ClusterName=assay
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={root}/munge.sock
CredType=cred/munge
SlurmctldPort={controller}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SwitchType=switch/none
KillWait=20
SchedulerParameters=sched_min_interval=100000,defer
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=2 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=2 State=UNKNOWN
PartitionName=work Nodes=n1,n2 Default=YES MaxTime=60 State=UP
"""


def _free_port() -> int:
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return int(each.getsockname()[1])


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a running cluster, whose clients find it by SLURM_CONF."""
    if missing := [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]:
        pytest.skip(f"{', '.join(missing)} not installed: apt-get install slurmctld slurmd munge")
    root = tmp_path_factory.mktemp("slurm")
    (root / "state").mkdir()
    (root / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    (root / "slurm.conf").write_text(
        CONFIGURATION.format(
            root=root,
            host=socket.gethostname().partition(".")[0],
            user=getpass.getuser(),
            controller=_free_port(),
            first=_free_port(),
            second=_free_port(),
        )
    )
    key = root / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    os.environ |= {"PATH": _path(), "SLURM_CONF": str(root / "slurm.conf")}
    processes = []
    try:
        for command in (
            (
                "munged", "--foreground", "--force", f"--key-file={key}",
                f"--socket={root}/munge.sock", f"--pid-file={root}/munged.pid",
                f"--seed-file={root}/seed", f"--log-file={root}/munged.log",
            ),
            ("slurmctld", "-D"),
            ("slurmd", "-D", "-N", "n1"),
            ("slurmd", "-D", "-N", "n2"),
        ):  # fmt: skip
            with (root / f"{command[0]}{len(processes)}.out").open("wb") as output:
                processes.append(subprocess.Popen(command, stdout=output, stderr=output))
            time.sleep(1)
        _await_nodes(root)
        yield root
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(30)


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _await_nodes(root: Path) -> None:
    said = ""
    for _ in range(60):
        told = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--format=%N %T"], capture_output=True, text=True
        )
        said = told.stdout + told.stderr
        if said.count(" idle") == 2:
            return
        time.sleep(1)
    logs = "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in root.glob("*.log"))
    raise AssertionError(f"the nodes did not come up: {said}\n{logs}")
