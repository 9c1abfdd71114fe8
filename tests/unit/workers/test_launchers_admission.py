"""The chart's admission policies take what the launcher makes, and refuse all else.

Not tried in a cluster: the expressions are evaluated here, on the objects as its API shows them.
"""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import helm_python as helm
import pytest

from tests.unit.workers.admission import NAMESPACE, ROOT, VALUES, WORKER, charts, refusal
from tests.unit.workers.cluster import Cluster
from tests.unit.workers.cluster_server import serving
from tests.unit.workers.test_launchers_trainjobs import JOB, attempt, node, rendered
from tests.unit.workers.test_launchers_trainjobs import settings as given
from workers.celery_tasks.jobs import launcher
from workers.launchers.trainjobs import network_policy
from workers.run.order import MAX_MINUTES, Resources

CONTROLLER = "system:serviceaccount:kube-system:job-controller"
RUN = f"assay-{JOB}-1"
SECRET = {"name": "s", "secret": {"secretName": "pull"}}
FROM = {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "pull", "key": "password"}}}
Objects = dict[str, dict[str, Any]]
Change = Callable[[Any], Any]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder whose `work` the pods mount."""
    return tmp_path_factory.mktemp("volume")


@pytest.fixture(scope="module")
def built(root: Path) -> Objects:
    """The objects of a run of two machines, with what the API and Kubeflow's webhook add."""
    (root / "cluster").mkdir()
    cluster = Cluster(root / "cluster")
    cluster.kubelet = False
    job = rendered(attempt(root), Resources(nodes=2, minutes=MAX_MINUTES), given(root))
    cluster.job_create(job)
    pods = list(cluster.pods.values())
    policy = network_policy(RUN, [SimpleNamespace(metadata=_named(each)) for each in pods])
    # Over JSON, since parts of a policy are one object.
    objects: Objects = json.loads(json.dumps({"job": job, "policy": policy, "pod": pods[0]}))
    objects["job"]["spec"] |= {"suspend": False, "managedBy": "trainer.kubeflow.org/trainjob"}
    objects["job"]["spec"]["runtimePatches"][0]["time"] = "2026-11-28T00:00:00Z"
    index = {"fieldRef": {"fieldPath": "metadata.annotations['job-completion-index']"}}
    inner(objects["pod"])["env"].append({"name": "JOB_COMPLETION_INDEX", "valueFrom": index})
    objects["pod"]["spec"]["serviceAccountName"] = "default"
    for each in objects.values():
        each["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": "2026-11-28T00:00:00Z"}
    return objects


@pytest.fixture
def made(built: Objects) -> Objects:
    """A copy that a test may change."""
    return copy.deepcopy(built)


def _named(pod: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(name=pod["metadata"]["name"], uid=pod["metadata"]["uid"])


def refused(root: Path, made: dict[str, Any], user: str = WORKER) -> str:
    return refusal(made, user, str(root / "work"))


def test_what_the_launcher_makes_is_accepted(root: Path, made: Objects) -> None:
    assert refused(root, made["job"]) == ""
    assert refused(root, made["policy"]) == ""
    assert refused(root, made["pod"], CONTROLLER) == ""
    alone = rendered(attempt(root, 2), Resources(devices=2, memory_gib=8), given(root))
    assert refused(root, alone) == ""


def test_what_a_compute_worker_submits_with_its_settings_is_accepted(
    tmp_path: Path, settings: Any
) -> None:
    (tmp_path / "cluster").mkdir()
    cluster = Cluster(tmp_path / "cluster")
    cluster.kubelet = False
    with serving(cluster) as config:
        settings.LAUNCHER, settings.DATA_DIR = "kubernetes", tmp_path
        settings.KUBERNETES_NAMESPACE, settings.KUBERNETES_DEVICE = NAMESPACE, "cpu"
        settings.KUBERNETES_CONFIG = str(config)
        launcher().submit(attempt(tmp_path), Resources())
    assert len(cluster.jobs) == 1


def trainer(job: Any) -> Any:
    return job["spec"]["trainer"]


def container(job: Any) -> Any:
    return node(job)["spec"]["containers"][0]


def patch(job: Any) -> Any:
    return job["spec"]["runtimePatches"][0]


OF_RUNTIME = "image, arguments or environment"
JOBS: dict[str, tuple[Change, str]] = {
    "image": (lambda it: trainer(it).update(image="evil"), OF_RUNTIME),
    "arguments": (lambda it: trainer(it).update(args=["-c", "evil"]), OF_RUNTIME),
    "secret": (lambda it: trainer(it).update(env=[FROM]), OF_RUNTIME),
    "shell": (lambda it: trainer(it).update(command=["sh", "-c", "id"]), "workers.run"),
    "no command": (lambda it: trainer(it).pop("command"), "workers.run"),
    "order": (lambda it: trainer(it)["command"].__setitem__(-1, "/tmp/mine"), "workers.run"),
    "runtime": (
        lambda it: it["spec"]["runtimeRef"].update(kind="ClusterTrainingRuntime"),
        "TrainingRuntime assay-run",
    ),
    "initializer": (
        lambda it: it["spec"].update(initializer={"model": {"secretRef": {"name": "pull"}}}),
        "such as an initializer",
    ),
    "no deadline": (lambda it: it["spec"].pop("activeDeadlineSeconds"), "a deadline"),
    "deadline": (lambda it: it["spec"].update(activeDeadlineSeconds=10**8), "within 30 days"),
    "volume": (lambda it: node(it)["spec"].update(volumes=[SECRET]), "change nothing else"),
    "account": (lambda it: node(it)["spec"].update(serviceAccountName="x"), "change nothing else"),
    "machine": (lambda it: node(it)["spec"].update(nodeSelector={"a": "b"}), "change nothing else"),
    "sidecar": (
        lambda it: node(it)["spec"]["containers"].append({"name": "b"}), "change nothing else",
    ),
    "whole volume": (lambda it: container(it)["volumeMounts"][0].pop("subPath"), "must mount its"),
    "files": (
        lambda it: container(it)["volumeMounts"][0].update(subPath="other/1"), "must mount its",
    ),
    "privileged": (
        lambda it: container(it)["securityContext"].update(privileged=True), "security context",
    ),
    "root": (lambda it: node(it)["spec"]["securityContext"].pop("runAsNonRoot"), "security"),
    "second patch": (lambda it: it["spec"]["runtimePatches"].append(patch(it)), "The patch"),
    "no patch": (lambda it: it["spec"].pop("runtimePatches"), "patch"),
    "other run": (lambda it: node(it)["metadata"]["labels"].update({"assay/job": "x"}), "patch"),
    "name": (lambda it: it["metadata"].update(name="assay-other-1"), "assay-<job>-<fence>"),
    "path": (lambda it: it["metadata"]["labels"].update({"assay/job": ".."}), "assay-<job>"),
    "no labels": (lambda it: it["metadata"].pop("labels"), "assay-<job>-<fence>"),
    "priority": (
        lambda it: it["metadata"]["labels"].update({"kueue.x-k8s.io/priority-class": "high"}),
        "no other label, annotation",
    ),
    "annotation": (
        lambda it: it["metadata"].update(annotations={"alpha.jobset.sigs.k8s.io/x": "y"}),
        "no other label, annotation",
    ),
    "finalizer": (lambda it: it["metadata"].update(finalizers=["a/b"]), "finalizer or owner"),
    "adapter": (
        lambda it: trainer(it)["resourcesPerNode"]["limits"].update({"rdma/hca": "1"}),
        "request only cpu, memory",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", JOBS)
def test_a_compute_worker_makes_no_other_train_job(name: str, root: Path, made: Objects) -> None:
    change, sentence = JOBS[name]
    change(made["job"])
    assert sentence in refused(root, made["job"])
    assert refused(root, made["job"], "admin") == "", "Others are not bound."


ANY = [{"namespaceSelector": {}}]
WORLD = [{"ipBlock": {"cidr": "0.0.0.0/0"}}]
POLICIES: dict[str, tuple[Change, str]] = {
    "all pods": (lambda it: it["spec"].update(podSelector={}), "select the pods of its run"),
    "other run": (
        lambda it: it["spec"]["podSelector"]["matchLabels"].update(
            {"jobset.sigs.k8s.io/jobset-name": "assay-other-1"}
        ),
        "select the pods of its run",
    ),
    "expression": (
        lambda it: it["spec"]["podSelector"].update(
            matchExpressions=[{"key": "assay/job", "operator": "Exists"}]
        ),
        "select the pods of its run",
    ),
    "direction": (lambda it: it["spec"].update(policyTypes=["Ingress"]), "ingress and egress"),
    "open": (lambda it: it["spec"].update(ingress=[{}]), "permit ingress"),
    "from all": (lambda it: it["spec"]["ingress"].append({"from": ANY}), "permit ingress"),
    "peer": (lambda it: it["spec"]["ingress"][0]["from"].extend(WORLD), "permit ingress"),
    "no ingress": (lambda it: it["spec"].pop("ingress"), "permit ingress"),
    "out": (lambda it: it["spec"].update(egress=[{}]), "permit egress"),
    "internet": (lambda it: it["spec"]["egress"][0].update(to=WORLD), "permit egress"),
    "ports": (lambda it: it["spec"]["egress"][1].pop("ports"), "permit egress"),
    "third rule": (lambda it: it["spec"]["egress"].append({"to": WORLD}), "permit egress"),
    "no egress": (lambda it: it["spec"].pop("egress"), "permit egress"),
    "no owner": (lambda it: it["metadata"].pop("ownerReferences"), "The owners"),
    "owner": (
        lambda it: it["metadata"]["ownerReferences"][0].update(kind="Namespace", name="runs"),
        "The owners",
    ),
    "finalizer": (lambda it: it["metadata"].update(finalizers=["a/b"]), "no finalizer"),
    "pod": (
        lambda it: it["metadata"]["ownerReferences"][1].update(name="assay-other-1-node-0-0-x"),
        "The owners",
    ),
    "name": (lambda it: it["metadata"].update(name="open"), "the name of its run"),
    "labels": (lambda it: it["metadata"].pop("labels"), "the label"),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_compute_worker_makes_no_other_network_policy(
    name: str, root: Path, made: Objects
) -> None:
    change, sentence = POLICIES[name]
    change(made["policy"])
    assert sentence in refused(root, made["policy"])


def spec(pod: Any) -> Any:
    return pod["spec"]


def inner(pod: Any) -> Any:
    return pod["spec"]["containers"][0]


HOST = {"name": "h", "hostPath": {"path": "/"}}
TOKEN = {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
CLAIM = {"name": "c", "persistentVolumeClaim": {"claimName": "other"}}
PODS: dict[str, tuple[Change, str]] = {
    "image": (lambda it: inner(it).update(image="evil"), "the image assay:compute alone"),
    "sidecar": (lambda it: spec(it)["containers"].append({"image": "evil"}), "the image"),
    "initial": (lambda it: spec(it).update(initContainers=[inner(it)]), "no init container"),
    "token": (lambda it: spec(it).pop("automountServiceAccountToken"), "no token"),
    "network": (lambda it: spec(it).update(hostNetwork=True), "of its machine"),
    "processes": (lambda it: spec(it).update(hostPID=True), "of its machine"),
    "root": (lambda it: inner(it)["securityContext"].update(runAsNonRoot=False), "run as root"),
    "privileged": (lambda it: inner(it)["securityContext"].update(privileged=True), "privileges"),
    "capability": (
        lambda it: inner(it)["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
        "capabilities",
    ),
    "unconfined": (lambda it: inner(it).pop("securityContext"), "privileges"),
    "host path": (lambda it: spec(it)["volumes"].append(HOST), "the claim shared"),
    "secret": (lambda it: spec(it)["volumes"].append(SECRET), "the claim shared"),
    "projected": (lambda it: spec(it)["volumes"].append(TOKEN), "the claim shared"),
    "claim": (lambda it: spec(it)["volumes"].append(CLAIM), "the claim shared"),
    "variable": (lambda it: inner(it)["env"].append(FROM), "Secrets or ConfigMaps"),
    "variables": (
        lambda it: inner(it).update(envFrom=[{"secretRef": {"name": "pull"}}]),
        "Secrets or ConfigMaps",
    ),
    "labels": (lambda it: it["metadata"].pop("labels"), "the labels of its run"),
    "other run": (lambda it: it["metadata"]["labels"].update({"assay/job": "x"}), "the labels"),
}


@pytest.mark.parametrize("name", PODS)
def test_no_other_pod_starts_where_runs_do(name: str, root: Path, made: Objects) -> None:
    change, sentence = PODS[name]
    change(made["pod"])
    assert sentence in refused(root, made["pod"], CONTROLLER)


def test_the_policies_can_be_switched_off() -> None:
    bindings = [each for each in charts("admission") if each["kind"].endswith("Binding")]
    assert {each["spec"]["policyName"] for each in bindings} == {
        each["metadata"]["name"] for each in charts("admission") if each not in bindings
    }
    values = {"runs": {**VALUES["runs"], "admissionPolicy": False}}
    texts = helm.Chart.load(str(ROOT / "deploy" / "helm" / "assay")).render(
        values, name="assay", namespace="models"
    )
    assert "ValidatingAdmissionPolicy" not in str(texts)
