"""The TrainJob of a run: a dictionary from checked fields, validated against Kubeflow's models.

The operator's TrainingRuntime, which the chart creates, defines the pod with its image, volumes and
security. A TrainJob adds the fields that differ between runs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubeflow_trainer_api import models
from pydantic import ValidationError

from governance.errors import InvalidInput, Unavailable
from governance.faults import clauses
from workers.run.order import CHECKPOINTS, MAX_MINUTES, Resources

GROUP, VERSION = "trainer.kubeflow.org", "v1alpha1"
# Kubeflow's names of the replicated job, and of its container.
NODE = "node"
# The runtime's volume that this worker mounts as its folder of runs.
VOLUME = "data"
JOB_LABEL, FENCE_LABEL = "assay/job", "assay/fence"
MANAGER_LABEL, MANAGER = "app.kubernetes.io/managed-by", "assay"
# Label that JobSet sets on the pods.
JOBSET_LABEL = "jobset.sigs.k8s.io/jobset-name"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
# Seconds between SIGTERM and SIGKILL when Kubernetes ends a pod.
GRACE_S = 120
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# A pod's name appends `-node-0-63-abcde`, and has at most 63 characters.
_RUN = re.compile(r"assay-[a-z0-9][-a-z0-9]{0,38}-[0-9]{1,6}")
_NAME_CHARACTERS = 47
_RESOURCE = re.compile(
    r"([a-z0-9][a-z0-9.-]{0,252}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
)
# Allowed paths. They exclude `$(NAME)`, which Kubernetes replaces in a command.
_PATH = re.compile(r"(/[A-Za-z0-9._-]+){1,40}")
_POD_SECURITY = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
_CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "privileged": False,
    "readOnlyRootFilesystem": True,
}


@dataclass(frozen=True, slots=True)
class KubernetesSettings:
    """The operator's description of the cluster.

    `root` is this worker's mount point of the volume that runs mount; `runtime` is a
    TrainingRuntime in `namespace`; `device` is the resource name of a job's device, `cpu` if
    devices are processes on CPUs; `queue` is a LocalQueue of Kueue, or empty. A run that the
    cluster has not started after `wait_minutes` ends. `config` is a kubeconfig file; empty for the
    service account of this worker's pod.
    """

    namespace: str
    root: Path
    runtime: str = "assay-run"
    device: str = "nvidia.com/gpu"
    queue: str = ""
    wait_minutes: int = 60
    config: str = ""

    def __post_init__(self) -> None:
        for name in ("namespace", "runtime", "queue"):
            value = getattr(self, name)
            if not _LABEL.fullmatch(value) and (value or name != "queue"):
                raise InvalidInput(f"{value[:80]!r} is not the name of a {name} in Kubernetes.")
        if not _RESOURCE.fullmatch(self.device):
            raise InvalidInput(f"{self.device[:80]!r} is not the name of a resource.")
        if self.wait_minutes < 1:
            raise InvalidInput("Runs need at least one minute to start.")


def run_name(folder: Path) -> str:
    """Return the name of the TrainJob for the folder <job>/<fence>. Raises InvalidInput."""
    name = f"assay-{folder.parent.name}-{folder.name}"
    if not _RUN.fullmatch(name) or len(name) > _NAME_CHARACTERS:
        raise InvalidInput(f"{name[:80]!r} cannot be the name of a TrainJob.")
    return name


def train_job(
    folder: Path, resources: Resources, settings: KubernetesSettings, runtime: dict[str, Any]
) -> dict[str, Any]:
    """Return the TrainJob of a run under a TrainingRuntime that `runtime_check` accepts.

    Raises:
        InvalidInput: the folder is not on the shared volume, or cannot be named.
    """
    folder = folder.resolve()
    name = run_name(folder)
    labels = {JOB_LABEL: folder.parent.name, FENCE_LABEL: folder.name}
    command = ["python", "-m", "workers.run", str(folder)]
    if resources.nodes > 1:
        # The runtime's torch policy sets torchrun's other options in PET_* variables.
        command = ["python", "-m", "torch.distributed.run", "-m", "workers.run", str(folder)]
    pod = {
        "metadata": {"labels": labels},
        "spec": {
            "securityContext": _POD_SECURITY,
            "terminationGracePeriodSeconds": GRACE_S,
            "containers": [
                {
                    "name": NODE,
                    "securityContext": _CONTAINER_SECURITY,
                    "volumeMounts": _mounts(folder, settings.root.resolve()),
                }
            ],
        },
    }
    patch = {"replicatedJobs": [{"name": NODE, "template": {"spec": {"template": pod}}}]}
    body = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": {
            "name": name,
            "namespace": settings.namespace,
            "labels": {
                **labels,
                MANAGER_LABEL: MANAGER,
                **({QUEUE_LABEL: settings.queue} if settings.queue else {}),
            },
        },
        "spec": {
            "runtimeRef": {"apiGroup": GROUP, "kind": "TrainingRuntime", "name": settings.runtime},
            # The supervisor ends a run in time. This ends a run whose supervisor died.
            "activeDeadlineSeconds": 60
            * ((resources.minutes or MAX_MINUTES) + settings.wait_minutes)
            + GRACE_S,
            "trainer": {
                "command": command,
                "numNodes": resources.nodes,
                "numProcPerNode": resources.devices,
                "resourcesPerNode": _amounts(resources, settings, runtime),
            },
            "runtimePatches": [
                {
                    "manager": "assay/launcher",
                    "trainingRuntimeSpec": {"template": {"spec": patch}},
                }
            ],
        },
    }
    return check_fields(models.TrainerV1alpha1TrainJob, body)


def network_policy(run: str, pods: Sequence[Any]) -> dict[str, Any]:
    """Return a NetworkPolicy under which the pods of a run reach only each other and DNS.

    The pods own it, so that Kubernetes removes it with the last of them. The TrainJob cannot own
    it: after its deletion, pods still work together on a checkpoint.
    """
    same = [{"podSelector": {"matchLabels": {JOBSET_LABEL: run}}}]
    names = {
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    ports = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {
            "name": run,
            "labels": {MANAGER_LABEL: MANAGER},
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": pod.metadata.name,
                    "uid": pod.metadata.uid,
                }
                for pod in pods
            ],
        },
        "spec": {
            "podSelector": same[0]["podSelector"],
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": same}],
            "egress": [{"to": same}, {"to": [names], "ports": ports}],
        },
    }


def _amounts(
    resources: Resources, settings: KubernetesSettings, runtime: dict[str, Any]
) -> dict[str, dict[str, str]]:
    """Return the resources of each machine: the job's, and the runtime's others.

    Kubeflow drops all resources of the runtime if a TrainJob has any.
    """
    amounts = {settings.device: str(resources.devices)}
    if resources.memory_gib is not None:
        amounts["memory"] = f"{resources.memory_gib}Gi"
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    (container,) = replicated["template"]["spec"]["template"]["spec"]["containers"]
    defaults = container.get("resources") or {}
    return {
        kind: {**{name: str(each) for name, each in (defaults.get(kind) or {}).items()}, **amounts}
        for kind in ("requests", "limits")
    }


def check_fields(model: Any, body: dict[str, Any]) -> dict[str, Any]:
    """Return the object after checking that the model knows every field. Raises InvalidInput."""
    try:
        parsed = model.from_dict(body).to_dict()
    except ValidationError as error:
        raise InvalidInput(
            f"The run cannot be written as a TrainJob: {clauses(error)[0]}."
        ) from error
    if parsed != body:
        raise InvalidInput("The run has fields that a TrainJob does not have.")
    return body


def _mounts(folder: Path, root: Path) -> list[dict[str, Any]]:
    """Return the mounts of a run: only the attempt's folder and the job's checkpoints."""
    checkpoints = (folder / CHECKPOINTS).resolve()
    paths = [folder] if checkpoints.is_relative_to(folder) else [folder, checkpoints]
    mounts = []
    for path in paths:
        if path == root or not path.is_relative_to(root) or not _PATH.fullmatch(str(path)):
            raise InvalidInput(f"The working folder {path} is not on the volume {root} of runs.")
        mounts.append(
            {"name": VOLUME, "mountPath": str(path), "subPath": str(path.relative_to(root))}
        )
    return mounts


def runtime_check(runtime: dict[str, Any]) -> None:
    """Check the settings of a runtime that a TrainJob cannot override.

    Raises:
        Unavailable: the operator must change the runtime; the message says what.
    """
    problem = _runtime_problem(runtime)
    if problem:
        name = runtime.get("metadata", {}).get("name", "")
        raise Unavailable(f"The TrainingRuntime {name!r} cannot run jobs: {problem}.")


def _runtime_problem(body: dict[str, Any]) -> str:
    try:
        runtime = models.TrainerV1alpha1TrainingRuntime.from_dict(body)
        policy, jobs = runtime.spec.ml_policy, runtime.spec.template.spec
        (replicated,) = jobs.replicated_jobs
        job = replicated.template.spec
        pod = job.template.spec
        (container,) = pod.containers
    except (ValidationError, AttributeError, TypeError, ValueError):
        return "it must have one replicated job with one container"
    kinds = [next(iter(each.to_dict().keys() - {"name"}), "") for each in pod.volumes or []]
    claims = [each.name for each in pod.volumes or [] if each.persistent_volume_claim]
    restarts = jobs.failure_policy.max_restarts if jobs.failure_policy else 0
    # A second run of the same folder would write under the claim of the first.
    if restarts or job.backoff_limit != 0 or pod.restart_policy != "Never":
        return "it repeats runs; set maxRestarts and backoffLimit to 0, restartPolicy to Never"
    if pod.automount_service_account_token is not False:
        return "its pods have a cluster token; set automountServiceAccountToken to false"
    if not set(kinds) <= {"emptyDir", "persistentVolumeClaim"}:
        return "its pods may mount claims and empty folders only"
    if container.env_from or any(each.value_from for each in container.env or []):
        return "the environment of its pods must not come from other objects"
    if (replicated.name, container.name) != (NODE, NODE) or VOLUME not in claims:
        return f"its job and container must be {NODE!r}, and the claim of its files {VOLUME!r}"
    if policy is None or policy.torch is None:
        return "it has no policy for torch"
    return ""
