"""The TrainJob of a run, and the runtime that it needs: rendered from checked fields."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from governance.errors import InvalidInput, Unavailable
from tests.unit.workers.admission import NAMESPACE
from tests.unit.workers.cluster import charted
from workers.launchers.trainjobs import KubernetesSettings, runtime_check, train_job
from workers.run.order import Resources

JOB = "0d4cbf5e-8a4c-4c07-9a3e-6ee1f3f2a111"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The volume that the worker and the pods have mounted at the same place."""
    (tmp_path / "work").mkdir()
    return tmp_path


def attempt(root: Path, fence: int = 1, job: str = JOB) -> Path:
    """The folder of an attempt, with the link to the job's checkpoints."""
    folder = root / "work" / job / str(fence)
    folder.mkdir(parents=True)
    checkpoints = folder.parent / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    (folder / "checkpoints").symlink_to(checkpoints)
    return folder


def settings(root: Path, **changes: Any) -> KubernetesSettings:
    return KubernetesSettings(
        **{"namespace": NAMESPACE, "root": root / "work", "device": "cpu", **changes}
    )


def rendered(folder: Path, resources: Resources, given: KubernetesSettings) -> dict[str, Any]:
    return train_job(folder, resources, given, charted("TrainingRuntime"))


def node(made: dict[str, Any]) -> dict[str, Any]:
    """The changes of a TrainJob to its pods."""
    (patch,) = made["spec"]["runtimePatches"]
    (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    return dict(job["template"]["spec"]["template"])


def test_a_run_of_several_machines_asks_for_what_its_job_does(root: Path) -> None:
    resources = Resources(nodes=2, devices=4, memory_gib=64, minutes=90)
    made = rendered(attempt(root), resources, settings(root, device="nvidia.com/gpu", queue="ml"))
    spec, amounts = made["spec"], {"nvidia.com/gpu": "4", "memory": "64Gi"}
    assert made["metadata"]["name"] == f"assay-{JOB}-1"
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "ml"
    assert spec["runtimeRef"]["name"] == "assay-run"
    assert (spec["trainer"]["numNodes"], spec["trainer"]["numProcPerNode"]) == (2, 4)
    assert spec["trainer"]["resourcesPerNode"] == {
        "requests": {"cpu": "4", **amounts},
        "limits": amounts,
    }
    assert spec["trainer"]["command"][:3] == ["python", "-m", "torch.distributed.run"]
    assert spec["activeDeadlineSeconds"] == (90 + 60) * 60 + 120
    assert node(made)["spec"]["terminationGracePeriodSeconds"] == 120


def test_a_run_keeps_the_resources_of_the_runtime_that_its_job_does_not_name(root: Path) -> None:
    runtime = copy.deepcopy(charted("TrainingRuntime"))
    pod(runtime)["containers"][0]["resources"] = {"requests": {"cpu": 8}, "limits": None}
    made = train_job(attempt(root), Resources(), settings(root, device="nvidia.com/gpu"), runtime)
    assert made["spec"]["trainer"]["resourcesPerNode"] == {
        "requests": {"cpu": "8", "nvidia.com/gpu": "1"},
        "limits": {"nvidia.com/gpu": "1"},
    }
    del pod(runtime)["containers"][0]["resources"]
    made = train_job(attempt(root, 2), Resources(), settings(root), runtime)
    amounts = {"cpu": "1"}
    assert made["spec"]["trainer"]["resourcesPerNode"] == {"requests": amounts, "limits": amounts}


def test_a_run_mounts_the_folders_of_its_own_job_alone(root: Path) -> None:
    made = rendered(attempt(root, 3), Resources(), settings(root))
    (container,) = node(made)["spec"]["containers"]
    work = root / "work" / JOB
    assert container["volumeMounts"] == [
        {"name": "data", "mountPath": f"{work}/3", "subPath": f"{JOB}/3"},
        {"name": "data", "mountPath": f"{work}/checkpoints", "subPath": f"{JOB}/checkpoints"},
    ]
    command = made["spec"]["trainer"]["command"]
    assert command == ["python", "-m", "workers.run", f"{work}/3"]


def test_a_folder_that_pods_cannot_mount_is_refused(root: Path, tmp_path: Path) -> None:
    inside = attempt(root)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with pytest.raises(InvalidInput, match="not on the volume"):
        rendered(inside, Resources(), settings(elsewhere))
    with pytest.raises(InvalidInput, match="not on the volume"):
        rendered(attempt(root / "$(HOME)"), Resources(), settings(root / "$(HOME)"))
    with pytest.raises(InvalidInput, match="name of a TrainJob"):
        rendered(attempt(root, job="Job_1"), Resources(), settings(root))


@pytest.mark.parametrize(
    "given",
    [
        {"namespace": ""},
        {"namespace": "a/b"},
        {"runtime": "Assay"},
        {"queue": "a b"},
        {"device": "nvidia.com/gpu: 1"},
        {"wait_minutes": 0},
    ],
    ids=str,
)
def test_settings_that_name_nothing_are_refused(given: dict[str, Any], root: Path) -> None:
    with pytest.raises(InvalidInput):
        settings(root, **given)


def jobset(runtime: dict[str, Any]) -> Any:
    return runtime["spec"]["template"]["spec"]


def job(runtime: dict[str, Any]) -> Any:
    return jobset(runtime)["replicatedJobs"][0]["template"]["spec"]


def pod(runtime: dict[str, Any]) -> Any:
    return job(runtime)["template"]["spec"]


SECRET = {"name": "s", "secret": {"secretName": "assay-web"}}
FROM = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "assay-web", "key": "secret_key"}}}
WRONG: dict[str, tuple[Any, str]] = {
    "restarts": (lambda it: jobset(it).update(failurePolicy={"maxRestarts": 3}), "repeats runs"),
    "retries": (lambda it: job(it).pop("backoffLimit"), "repeats runs"),
    "policy": (lambda it: pod(it).update(restartPolicy="OnFailure"), "repeats runs"),
    "token": (lambda it: pod(it).pop("automountServiceAccountToken"), "cluster token"),
    "secret": (lambda it: pod(it)["volumes"].append(SECRET), "claims and empty folders only"),
    "variable": (lambda it: pod(it)["containers"][0]["env"].append(FROM), "from other objects"),
    "volume": (lambda it: pod(it)["volumes"][0].update(name="files"), "'data'"),
    "torch": (lambda it: it["spec"].update(mlPolicy={"numNodes": 1}), "policy for torch"),
    "two": (lambda it: jobset(it)["replicatedJobs"].append({"name": "x"}), "one replicated job"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_runtime_that_repeats_runs_or_holds_secrets_is_refused(name: str) -> None:
    change, sentence = WRONG[name]
    runtime = copy.deepcopy(charted("TrainingRuntime"))
    runtime_check(runtime)
    change(runtime)
    with pytest.raises(Unavailable, match=sentence):
        runtime_check(runtime)
