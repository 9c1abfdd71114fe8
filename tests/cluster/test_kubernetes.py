"""A LoRA run on two pods that meet by PET_* variables, against a stand-in for a cluster."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.test_slurm import attempt, steps
from tests.unit.workers.admission import NAMESPACE
from tests.unit.workers.cluster import Cluster
from tests.unit.workers.cluster_server import serving
from tests.unit.workers.test_launchers_kubernetes import Folders
from tests.unit.workers.test_run import Recorder
from tests.waiting import wait_until
from workers.control.jobs import Claim
from workers.launchers.kubernetes import KubernetesLauncher
from workers.launchers.trainjobs import KubernetesSettings
from workers.run.order import Order, Resources
from workers.supervision.supervisor import Supervisor

pytestmark = [pytest.mark.cluster, pytest.mark.torch]


class Control(Recorder):
    """Keeps the manifests of checkpoints, as the database does; can be told to cancel."""

    def __init__(self) -> None:
        super().__init__()
        self.checkpoints: dict[str, Any] = {}

    def checkpoint(self, claim: Claim, name: str, manifest: Any, remaining: Any) -> None:
        made = {**self.checkpoints, name: manifest}
        self.checkpoints = {each: made[each] for each in remaining if each in made}


class GivenFolders(Folders):
    """The inputs are those that `attempt` has made."""

    def __init__(self, root: Path, given: Path) -> None:
        super().__init__(root)
        self.given = given

    def fetch(self, order: Order, inputs: Path) -> None:
        shutil.copytree(self.given / "inputs", inputs, dirs_exist_ok=True)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "cluster").mkdir()
    cluster = Cluster(tmp_path / "cluster")
    with serving(cluster):
        yield cluster
    assert cluster.forbidden == []


def test_a_run_on_two_pods_is_canceled_with_a_checkpoint_and_resumes_to_a_version(
    tiny: Path, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = Resources(nodes=2)
    given = Order.read(attempt(tmp_path / "given", tiny, two))
    launcher = KubernetesLauncher(
        KubernetesSettings(
            namespace=NAMESPACE,
            root=tmp_path / "work",
            device="cpu",
            config=str(cluster.folder / "kubeconfig"),
        )
    )
    job = uuid.uuid4()
    poll = launcher.poll

    def supervised(control: Control, fence: int) -> Path:
        claim = Claim(job, fence, fence, "fine_tune", "LoRA", "w1", lease_s=300)
        made = given.model_copy(
            update={"job": job, "fence": fence, "checkpoints": control.checkpoints}
        )
        files = GivenFolders(tmp_path, tmp_path / "given")
        supervisor = Supervisor(control, files, launcher, threads=1, stop_s=90)
        supervisor.run(claim, made)
        return files.attempt_folder(claim)

    control = Control()
    folder = tmp_path / "work" / str(job) / "1"

    def canceling(handle: str) -> Any:
        # The API is away for a while, and back before the cancellation.
        cluster.away = 2 <= steps(folder) < 5
        control.cancel = control.cancel or steps(folder) >= 5
        return poll(handle)

    monkeypatch.setattr(launcher, "poll", canceling)
    assert supervised(control, 1) == folder
    assert control.told == [("canceled",)]
    assert control.checkpoints, "Both pods wrote one within their time to end."
    assert (cluster.jobs, cluster.pods) == ({}, {})
    wait_until(lambda: not cluster.processes)

    control.cancel = False
    monkeypatch.setattr(launcher, "poll", poll)
    supervised(control, 2)
    kind, result = control.told[-1]
    assert kind == "deliver", result
    assert result["parameters"]["processes"] == 2
    assert any("Resuming from checkpoint-" in line for line in control.lines)
