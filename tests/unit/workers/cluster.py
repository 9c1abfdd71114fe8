"""A stand-in for a Kubernetes cluster with Kubeflow Trainer: one namespace, over HTTP.

It stores TrainJobs after checking them against Kubeflow's models, makes their pods from the chart's
TrainingRuntime, checks these against the schema of Kubernetes and the security standard, and plays
kubelet: a pod's command is a process of this machine. It permits what the chart's Role and
admission policies permit.
"""

from __future__ import annotations

import copy
import os
import re
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
from kubeflow_trainer_api import models

from governance.errors import InvalidInput
from tests.unit.workers.admission import NAMESPACE, ROOT, WORKER, charts, refusal
from workers.launchers.trainjobs import check_fields

TOKEN = "a-token-of-the-worker"
VERBS = {"GET": "get", "POST": "create", "DELETE": "delete"}
_WHERE = re.compile(
    r"/apis?(?:/(?P<group>trainer\.kubeflow\.org|networking\.k8s\.io))?/v1(?:alpha1)?"
    rf"/namespaces/{NAMESPACE}"
    r"/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+)(?:/(?P<part>[a-z]+))?)?"
)
_LABEL = re.compile(r"([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def charted(kind: str) -> dict[str, Any]:
    """The chart's object of that kind in the namespace of runs."""
    (found,) = (
        each
        for each in charts("runs")
        if each["kind"] == kind and each["metadata"]["namespace"] == NAMESPACE
    )
    return found


class Cluster:
    """The cluster's state. A test may change `jobs` and `pods`, which are as the API shows them.

    `away` leaves requests unanswered, `loses` answers to POST, and `kubelet` off starts no process.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # The files that pods can mount.
        self.volume = folder.parent / "work"
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, dict[str, Any]] = {}
        self.policies = {"assay-run": charted("NetworkPolicy")}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.runtimes = {"assay-run": charted("TrainingRuntime")}
        self.kubelet = True
        self.away = self.loses = False
        self.forbidden: list[str] = []
        self.lock = threading.RLock()

    # The controllers of Kubeflow, JobSet and Job.

    def job_create(self, made: dict[str, Any]) -> None:
        """Store a TrainJob and make its pods. Raises InvalidInput, as the API answers 422."""
        check_fields(models.TrainerV1alpha1TrainJob, made)
        name, spec = made["metadata"]["name"], made["spec"]
        if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) or len(name) > 63:
            raise InvalidInput("metadata.name must match RFC 1035 DNS label format")
        for key, value in made["metadata"]["labels"].items():
            if not _LABEL.fullmatch(key) or not re.fullmatch(r"[A-Za-z0-9._-]{0,63}", value):
                raise InvalidInput(f"metadata.labels: invalid label {key}={value}")
        (patch,) = spec["runtimePatches"]
        if not re.fullmatch(r"[a-z0-9.-]+/[a-z0-9-]+", patch["manager"]):
            raise InvalidInput("spec.runtimePatches[0].manager must be a domain-prefixed path")
        self.jobs[name] = made
        for index in range(spec["trainer"]["numNodes"]):
            self._pod_create(made, patch["trainingRuntimeSpec"]["template"]["spec"], index)

    def _pod_create(self, job: dict[str, Any], patch: dict[str, Any], index: int) -> None:
        name, trainer = job["metadata"]["name"], job["spec"]["trainer"]
        runtime = self.runtimes[job["spec"]["runtimeRef"]["name"]]["spec"]["template"]["spec"]
        template = copy.deepcopy(runtime["replicatedJobs"][0]["template"]["spec"])
        (patched,) = patch["replicatedJobs"]
        added = patched["template"]["spec"]["template"]
        spec, more = template["template"]["spec"], added["spec"]
        spec["securityContext"] |= more["securityContext"]
        spec["terminationGracePeriodSeconds"] = more["terminationGracePeriodSeconds"]
        (container,), (extra,) = spec["containers"], more["containers"]
        container["command"] = trainer["command"]
        container["securityContext"] |= extra["securityContext"]
        container["volumeMounts"] += extra["volumeMounts"]
        # Those of the runtime are dropped.
        container["resources"] = trainer["resourcesPerNode"]
        host = "127.0.0.1"  # In a cluster the name of the first pod.
        container["env"] += [
            {"name": "PET_NNODES", "value": str(trainer["numNodes"])},
            {"name": "PET_NPROC_PER_NODE", "value": str(trainer["numProcPerNode"])},
            {"name": "PET_NODE_RANK", "value": str(index)},
            {"name": "PET_MASTER_ADDR", "value": host},
            {"name": "PET_MASTER_PORT", "value": str(29_500 + os.getpid() % 1_000)},
        ]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{name}-node-0-{index}-{uuid.uuid4().hex[:5]}",
                "namespace": NAMESPACE,
                "uid": str(uuid.uuid4()),
                "labels": {
                    **template["template"]["metadata"]["labels"],
                    **added["metadata"]["labels"],
                    "jobset.sigs.k8s.io/jobset-name": name,
                },
                "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
            },
            "spec": spec,
        }
        pod_check(pod)
        refused = refusal(pod, "system:serviceaccount:kube-system:job-controller")
        assert not refused, refused
        pod["status"] = {"phase": "Pending"}
        if self.kubelet:
            self._start(pod)
        self.pods[pod["metadata"]["name"]] = pod

    # The network.

    def policy_create(self, made: dict[str, Any]) -> None:
        """Store a NetworkPolicy. Raises InvalidInput, as the API answers 422."""
        try:
            for version in ("1.29", "1.37"):
                kubernetes_validate.validate(made, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise InvalidInput(error.message) from error
        self.policies[made["metadata"]["name"]] = made

    def reaches(self, source: dict[str, Any], target: dict[str, Any]) -> bool:
        """Return whether the policies permit connections from one pod to another."""
        return self._permits(source, target, "egress", "to") and self._permits(
            target, source, "ingress", "from"
        )

    def _permits(self, pod: dict[str, Any], other: dict[str, Any], way: str, side: str) -> bool:
        return any(
            matches(peer["podSelector"], other) and "namespaceSelector" not in peer
            for policy in self.policies.values()
            if matches(policy["spec"]["podSelector"], pod)
            for rule in policy["spec"].get(way, [])
            for peer in rule[side]
        )

    def _collect_garbage(self) -> None:
        living = {pod["metadata"]["uid"] for pod in self.pods.values()}
        for name, policy in list(self.policies.items()):
            owners = policy["metadata"].get("ownerReferences", [])
            if owners and living.isdisjoint(each["uid"] for each in owners):
                del self.policies[name]

    # The kubelet.

    def _start(self, pod: dict[str, Any]) -> None:
        (container,) = pod["spec"]["containers"]
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        given = {
            each["name"]: each["value"].replace("/var/lib/scratch", str(scratch))
            for each in container["env"]
        }
        name = pod["metadata"]["name"]
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                container["command"],
                # The image's own variables, and the pod's.
                env={
                    "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
                    "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}",
                    "OMP_NUM_THREADS": "1",
                    **given,
                },
                cwd=scratch,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def observe(self) -> None:
        """Bring the states of pods and TrainJobs up to date with the processes."""
        for name, process in list(self.processes.items()):
            pod, status = self.pods[name], process.poll()
            if status is None:
                pod["status"]["phase"] = "Running"
                continue
            del self.processes[name]
            if "deletionTimestamp" in pod["metadata"]:
                del self.pods[name]
                self._fail(pod, "BackoffLimitExceeded")
                continue
            code = 128 - status if status < 0 else status
            ended = {"exitCode": code, "reason": "Error" if code else "Completed"}
            pod["status"] |= {
                "phase": "Failed" if code else "Succeeded",
                "containerStatuses": [container_status({"terminated": ended})],
            }
            if code:
                self._fail(pod, "BackoffLimitExceeded")
        self._collect_garbage()
        for name, job in self.jobs.items():
            pods = self.of(name)
            if pods and all(pod["status"]["phase"] == "Succeeded" for pod in pods):
                job["status"] = condition("Complete", "AllJobsCompleted", "jobset completed")

    def _fail(self, pod: dict[str, Any], reason: str) -> None:
        name = pod["metadata"]["labels"]["jobset.sigs.k8s.io/jobset-name"]
        if job := self.jobs.get(name):
            job["status"] = condition("Failed", reason, "jobset failed due to one or more failures")
            for other in self.of(name):
                if other["metadata"]["name"] in self.processes:
                    self.pod_delete(other["metadata"]["name"])

    def of(self, job: str) -> list[dict[str, Any]]:
        """The pods of a TrainJob."""
        label = "jobset.sigs.k8s.io/jobset-name"
        return [pod for pod in self.pods.values() if pod["metadata"]["labels"][label] == job]

    def pod_delete(self, name: str, grace_s: float | None = None) -> None:
        """SIGTERM, and SIGKILL after the grace period; the object goes when the process has."""
        pod = self.pods[name]
        process = self.processes.get(name)
        if process is None:
            del self.pods[name]
            return
        pod["metadata"]["deletionTimestamp"] = "2026-11-27T00:00:00Z"
        grace_s = pod["spec"]["terminationGracePeriodSeconds"] if grace_s is None else grace_s

        def kill() -> None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(grace_s)
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

        process.terminate()
        threading.Thread(target=kill, daemon=True).start()

    def drain(self, name: str) -> None:
        """Evict a pod as `kubectl drain` does."""
        with self.lock:
            self.observe()
            self.pods[name]["status"]["conditions"] = [
                {
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "EvictionByEvictionAPI",
                    "message": "Eviction API: evicting",
                }
            ]
            self.pod_delete(name)

    def end(self) -> None:
        """Kill all processes."""
        for process in self.processes.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    # The API server.

    def permits(self, verb: str, group: str, resource: str, name: str | None) -> bool:
        """Return whether the chart's Role permits the request."""
        permitted = any(
            group in rule["apiGroups"]
            and resource in rule["resources"]
            and verb in rule["verbs"]
            and name in (rule.get("resourceNames") or [name])
            for rule in charted("Role")["rules"]
        )
        if not permitted:
            self.forbidden.append(f"{verb} {resource}")
        return permitted

    def answer(self, method: str, address: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        """Return status and body of the answer to a request."""
        url = urlsplit(address)
        where = _WHERE.fullmatch(url.path)
        if where is None:
            return 404, status(404, "the server could not find the requested resource")
        group, resource, name, part = (
            where[each] for each in ("group", "resource", "name", "part")
        )
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        verb = "list" if method == "GET" and name is None else VERBS[method]
        asked = f"{resource}/{part}" if part else resource
        if not self.permits(verb, group or "", asked, name):
            return 403, status(403, f"{asked} is forbidden: the user cannot {verb} it")
        with self.lock:
            self.observe()
            created = {
                "trainjobs": (self.jobs, self.job_create),
                "networkpolicies": (self.policies, self.policy_create),
            }
            stored = {"trainjobs": self.jobs, "trainingruntimes": self.runtimes, "pods": self.pods}
            found = stored.get(resource, {})
            if verb == "create" and body is not None:
                return self._created(body, *created[resource])
            if verb == "list":
                chosen = [each for each in found.values() if selected(each, query)]
                return 200, {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": chosen}
            if name not in found:
                return 404, status(404, f'{resource} "{name}" not found')
            if verb == "get":
                return 200, self._log(name, query) if part == "log" else found[name]
            if resource == "pods":
                self.pod_delete(name, float(query.get("gracePeriodSeconds", 30)))
            else:
                assert query["propagationPolicy"] == "Background"
                del self.jobs[name]
                for pod in self.of(name):
                    self.pod_delete(pod["metadata"]["name"])
            return 200, status(200, "")

    def _created(
        self, body: dict[str, Any], stored: dict[str, Any], create: Callable[[dict[str, Any]], None]
    ) -> tuple[int, Any]:
        if body["metadata"]["name"] in stored:
            return 409, status(409, "it already exists", "AlreadyExists")
        if refused := refusal(body, WORKER, str(self.volume)):
            return 422, status(422, f"ValidatingAdmissionPolicy denied request: {refused}")
        try:
            create(body)
        except InvalidInput as error:
            return 422, status(422, error.message)
        return 201, body

    def _log(self, name: str, query: dict[str, str]) -> str:
        lines = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()
        text = "\n".join(lines[-int(query["tailLines"]) :])
        return text[: int(query["limitBytes"])]


def matches(selector: dict[str, Any], pod: dict[str, Any]) -> bool:
    """Return whether a selector of labels selects a pod; an empty one selects all."""
    return selector.get("matchLabels", {}).items() <= pod["metadata"]["labels"].items()


def selected(found: dict[str, Any], query: dict[str, str]) -> bool:
    """Return whether an object has the label that a request selects."""
    key, _, value = query.get("labelSelector", "").partition("=")
    return not key or found["metadata"].get("labels", {}).get(key) == value


def condition(kind: str, reason: str, message: str) -> dict[str, Any]:
    """A TrainJob's status with one condition."""
    made = {"type": kind, "status": "True", "reason": reason, "message": message}
    return {"conditions": [{**made, "lastTransitionTime": "2026-11-27T00:00:00Z"}]}


def container_status(state: dict[str, Any]) -> dict[str, Any]:
    """A container's status in a state."""
    same = {"name": "node", "ready": False, "restartCount": 0, "image": "assay", "imageID": ""}
    return {**same, "state": state}


def status(code: int, message: str, reason: str = "") -> dict[str, Any]:
    """The Status object that the API answers with."""
    same = {"kind": "Status", "apiVersion": "v1"}
    return {**same, "code": code, "message": message, "reason": reason}


def pod_check(pod: dict[str, Any]) -> None:
    """Check a pod against the schemas of Kubernetes and the Pod Security Standard *restricted*."""
    for version in ("1.29", "1.37"):
        kubernetes_validate.validate(pod, version, strict=True)
    spec = pod["spec"]
    (container,) = spec["containers"]
    security = container["securityContext"]
    assert len(pod["metadata"]["name"]) <= 63
    assert spec["restartPolicy"] == "Never"
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["readOnlyRootFilesystem"] is True
    assert security["privileged"] is security["allowPrivilegeEscalation"] is False
    kinds = {next(iter(each.keys() - {"name"})) for each in spec["volumes"]}
    assert kinds == {"persistentVolumeClaim", "emptyDir"}
    mounted = {each["name"]: each for each in container["volumeMounts"]}
    assert mounted.keys() == {each["name"] for each in spec["volumes"]}
    assert all(each["subPath"] for each in container["volumeMounts"] if each["name"] == "data")
    assert container["resources"]["limits"]["memory"]
