"""A cluster of Slurm on this machine: a controller and two nodes. `./test --cluster` runs these.

Each node is a machine of its own (`machine.sh`). This one runs the controller and Assay's worker.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.conf import settings

from tests.cluster.machines import Machine, machines
from tests.unit.workers.conftest import smollm2 as smollm2
from tests.unit.workers.conftest import tiny as tiny
from workers.launchers.slurm import SlurmLauncher, SlurmSettings

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "ip", "unshare")
CONFIGURATION = """
ClusterName=assay
SlurmctldHost={host}({own})
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={root}/munge.sock
CredType=cred/munge
SlurmctldPort={controller}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
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
SlurmdTimeout=10
SchedulerParameters=sched_min_interval=100000,defer
NodeName=n1 NodeAddr={n1} CPUs=2 State=UNKNOWN
NodeName=n2 NodeAddr={n2} CPUs=2 State=UNKNOWN
PartitionName=work Nodes=n1,n2 Default=YES MaxTime=60 State=UP
"""


@dataclass(frozen=True)
class Cluster:
    """A running cluster, and the only folder that its machines share with this one."""

    root: Path
    shared: Path
    machines: dict[str, Machine]

    def await_nodes(self) -> None:
        """Wait until both nodes are idle."""
        said = ""
        for _ in range(60):
            told = subprocess.run(
                ["sinfo", "--noheader", "--Node", "--format=%N %T"], capture_output=True, text=True
            )
            said = told.stdout + told.stderr
            if said.count(" idle") == 2:
                return
            time.sleep(1)
        logs = "\n".join(f"{path}: {path.read_text()[-1500:]}" for path in self.root.glob("*.log"))
        raise AssertionError(f"the nodes did not come up: {said}\n{logs}")


def _free_port() -> int:
    with socket.socket() as each:
        each.bind(("", 0))
        return int(each.getsockname()[1])


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A controller and two machines, which clients find by SLURM_CONF."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if missing := [name for name in PROGRAMS if shutil.which(name, path=path) is None]:
        pytest.skip(f"{', '.join(missing)} not installed: apt-get install slurmctld slurmd munge")
    if os.geteuid():
        pytest.skip("only root makes network namespaces")
    os.environ["PATH"] = path
    shared = Path(settings.DATA_DIR).absolute() / "work"
    shared.mkdir(parents=True, exist_ok=True)
    with ExitStack() as after:
        # The machines have a folder /tmp of their own, so that this is not theirs.
        root = Path(
            after.enter_context(tempfile.TemporaryDirectory(prefix="assay-slurm-", dir="/tmp"))
        )
        addresses = _configure(root)
        os.environ["SLURM_CONF"] = str(root / "slurm.conf")
        own = addresses.pop("own")
        made = after.enter_context(machines(root, shared, addresses, own))
        for command in (
            (
                "munged", "--foreground", "--force", f"--key-file={root}/munge.key",
                f"--socket={root}/munge.sock", f"--pid-file={root}/munged.pid",
                f"--seed-file={root}/seed", f"--log-file={root}/munged.log",
            ),
            ("slurmctld", "-D"),
        ):  # fmt: skip
            with (root / f"{command[0]}.out").open("wb") as output:
                process = subprocess.Popen(command, stdout=output, stderr=output)
            after.callback(process.wait, 30)
            after.callback(process.terminate)
            time.sleep(1)
        running = Cluster(root, shared, made)
        running.await_nodes()
        yield running


def _configure(root: Path) -> dict[str, str]:
    """Write the cluster's files; return its addresses by name, this machine's as `own`."""
    (root / "state").mkdir()
    # A network that is set aside for tests (RFC 2544).
    network = f"198.18.{os.getpid() % 250}"
    addresses = {"own": f"{network}.1", "n1": f"{network}.11", "n2": f"{network}.12"}
    host = socket.gethostname().partition(".")[0]
    lines = ["127.0.0.1 localhost", *(f"{at} {name}" for name, at in addresses.items())]
    (root / "hosts").write_text("\n".join(lines) + "\n")
    (root / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
    (root / "slurm.conf").write_text(
        CONFIGURATION.format(
            root=root, host=host, user=getpass.getuser(), controller=_free_port(), **addresses
        )
    )
    key = root / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    return addresses


@pytest.fixture
def launcher(cluster: Cluster) -> SlurmLauncher:
    """A launcher of the cluster, where a device is a process."""
    os.environ["OMP_NUM_THREADS"] = "1"
    cluster.await_nodes()
    return SlurmLauncher(SlurmSettings(python=sys.executable, partition="work", gpus=False))
