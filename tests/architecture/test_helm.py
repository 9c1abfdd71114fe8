"""No cluster runs the chart in the tests: it is linted, rendered, and compared with the rest."""

from __future__ import annotations

import base64
import copy
import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml
from kubeflow_trainer_api import models

from assay.broker_users import PREFIX
from assay.database_roles.privileges import OWNER, ROLES
from assay.processes import HOLDERS, READERS
from tests import shipped
from tests.architecture.interpreters import run_program
from tests.architecture.test_docker import BROKER_USERS, NETWORKS, STORES, database_role
from tests.architecture.test_monitoring import EXPOSED
from tests.architecture.test_settings import NEEDED
from tests.promql import check
from tests.shipped import CHART, chart
from tests.shipped import pod_environment as environment
from workers.launchers.trainjobs import check_fields, runtime_check

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "docker" / "prometheus"
# Our pods, and the services of compose.yaml that run the same process.
PROCESSES = {
    "web": "web",
    "controller": "controller",
    "compute-cpu": "worker-compute",
    "engine-cpu": "worker-engine",
    "egress": "worker-egress",
    "migrate": "migrate",
    "backup": "backup",
    "restore": "backup",
}
BACKUP = {
    "claim": "backups",
    "restore": "2026-11-27T174200Z",
    "options": ["--accept-lost-events", "3"],
}
POOL = {
    "replicas": 2,
    "concurrency": 4,
    "gpus": 1,
    "scratch": "200Gi",
    "resources": {"requests": {"cpu": "8", "memory": "64Gi"}, "limits": {"memory": "64Gi"}},
    "nodeSelector": {"accelerator": "h100"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "autoscaling": {"enabled": True, "min": 0, "max": 3, "perWorker": 20},
}
FULL: dict[str, Any] = {
    "images": {"control": "assay@sha256:" + "ab" * 32, "pullSecrets": [{"name": "pull"}]},
    "store": {"url": "s3://models/assay", "endpointUrl": "https://s3.example"},
    "audit": {"publishUrl": "s3://log/assay"},
    "tracing": {"endpoint": "http://collector:4318"},
    "singleSignOn": {"issuer": "https://id.example", "clientId": "assay"},
    "firstAdministrator": {"email": "ada@example.org", "name": "Ada"},
    "storage": {"data": {"existingClaim": "shared"}},
    "environment": {"ASSAY_EMAIL_FROM": "assay@example.org"},
    "recreate": True,
    "backup": BACKUP,
    "web": {"autoscaling": {"enabled": True}},
    "compute": {"cpu": {"autoscaling": {"enabled": True}}, "gpu": POOL},
    "engine": {"gpu": POOL},
    "networkPolicy": {"database": [{"podSelector": {"matchLabels": {"app": "postgres"}}}]},
    "runs": {
        "enabled": True,
        "namespace": "runs",
        "claim": "shared",
        "nodeSelector": {"accelerator": "h100"},
        "podGroupPolicy": {"coscheduling": {"scheduleTimeoutSeconds": 600}},
    },
    "monitoring": {
        "serviceMonitor": True,
        "prometheusRule": True,
        "otherNames": True,
        "dashboard": True,
        "labels": {"release": "prometheus"},
    },
}
VALUES = {"default": {"backup": BACKUP}, "full": FULL}
# The oldest Kubernetes that the chart takes, and the newest that is known.
VERSIONS = {"default": "1.29", "full": "1.37"}


@cache
def rendered(name: str) -> list[dict[str, Any]]:
    """The objects that the chart makes with `VALUES[name]`."""
    return shipped.rendered(VALUES[name])


def named(name: str, kind: str, component: str) -> dict[str, Any]:
    (found,) = [
        each
        for each in rendered(name)
        if each["kind"] == kind and each["metadata"]["name"] == f"assay-{component}"
    ]
    return found


def pods(name: str) -> dict[str, dict[str, Any]]:
    """The pod specification of each Deployment and Job, by its component."""
    return shipped.pods(rendered(name))


def test_the_chart_lints_without_warnings() -> None:
    found = helm.lint(str(CHART))
    messages = [each["error"] for each in found["messages"]]
    assert (messages, found["errors"]) == (["icon is recommended"], [])


@pytest.mark.parametrize("name", VALUES)
def test_every_object_follows_the_schema_of_its_kind(name: str) -> None:
    custom = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}
    for each in rendered(name):
        if each["kind"] == "TrainingRuntime":
            check_fields(models.TrainerV1alpha1TrainingRuntime, each)
        elif each["kind"] not in custom:
            kubernetes_validate.validate(each, VERSIONS[name], strict=True)
        run = each["metadata"]["name"] == "assay-run"
        whole = each["kind"].startswith("ValidatingAdmissionPolicy")
        place = None if whole else "runs" if run else "models"
        assert each["metadata"].get("namespace") == place
        assert re.fullmatch(r"[a-z0-9-]{1,63}", each["metadata"]["name"])
    kinds = {each["kind"] for each in rendered("full")}
    assert custom | {"HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"} <= kinds
    assert not custom & {each["kind"] for each in rendered("default")}


@pytest.mark.parametrize("name", VALUES)
def test_every_pod_meets_the_restricted_security_standard(name: str) -> None:
    assert len(pods(name)) >= 6
    for component, pod in pods(name).items():
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] == 10001, "The user of docker/Dockerfile."
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        launches = name == "full" and component.startswith("compute-")
        assert pod["automountServiceAccountToken"] is launches
        assert pod.get("serviceAccountName") == ("assay-compute" if launches else None)
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & pod.keys()
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "privileged": False,
            "readOnlyRootFilesystem": True,
        }
        assert container["resources"]["limits"]["memory"], component
        kinds = {next(iter(each.keys() - {"name"})) for each in pod["volumes"]}
        assert kinds <= {"secret", "emptyDir", "persistentVolumeClaim"}
        assert all(each["emptyDir"]["sizeLimit"] for each in pod["volumes"] if "emptyDir" in each)
        mounted = {each["name"] for each in container["volumeMounts"]}
        assert mounted <= {each["name"] for each in pod["volumes"]}, component


@pytest.mark.parametrize("name", VALUES)
def test_every_process_holds_its_own_secrets_as_files(name: str) -> None:
    for component, pod in pods(name).items():
        if component == "mlflow":
            continue
        given = environment(pod)
        process = given["ASSAY_PROCESS"]
        for variable in given:
            setting = variable.removesuffix("_FILE")
            if setting in HOLDERS:
                assert process in HOLDERS[setting], f"{component}: {variable}"
                assert variable.endswith("_FILE"), f"{component}: {variable} is in the environment"
        (volume,) = [each["secret"] for each in pod["volumes"] if each["name"] == "secrets"]
        kind = "backup" if component == "restore" else component.partition("-")[0]
        assert volume["secretName"] == f"assay-{kind}"
        held = {f"/run/secrets/assay/{item['path']}" for item in volume["items"]}
        assert held == {value for key, value in given.items() if key.endswith("_FILE")}


def test_every_process_starts_with_the_settings_that_the_chart_gives(tmp_path: Path) -> None:
    """Each in a fresh interpreter, with files of docker/make-secrets.sh as its Secret."""
    secrets, objects = tmp_path / "secrets", tmp_path / "objects"
    subprocess.run([ROOT / "docker" / "make-secrets.sh", secrets], check=True, capture_output=True)
    given_by_others = ("store_writer_id", "store_writer_key", "store_reader_id", "store_reader_key")
    (secrets / "oidc_client_secret").chmod(0o644)
    for name in (*given_by_others, "oidc_client_secret"):
        (secrets / name).write_text("x" * 20)
    printed = subprocess.run(
        [ROOT / "deploy" / "helm" / "make-secrets.sh", secrets], check=True, capture_output=True
    ).stdout
    made = {each["metadata"]["name"]: each["data"] for each in yaml.safe_load_all(printed) if each}
    for secret, data in made.items():
        (objects / secret).mkdir(parents=True)
        for key, value in data.items():
            (objects / secret / key).write_bytes(base64.b64decode(value))
    assert made.keys() == set(chart().values["existingSecrets"].values())
    for component, pod in pods("full").items():
        if component == "mlflow":
            continue
        (volume,) = [each["secret"] for each in pod["volumes"] if each["name"] == "secrets"]
        folder = objects / volume["secretName"]
        assert {each["key"] for each in volume["items"]} == made[volume["secretName"]].keys()
        given = {
            key: value.replace("/run/secrets/assay", str(folder)).replace(
                "/run/broker/ca.crt", str(objects / "assay-broker-ca" / "ca.crt")
            )
            for key, value in environment(pod).items()
        }
        process = given["ASSAY_PROCESS"]
        needed = {each.removesuffix("_FILE") for each in given}
        assert NEEDED[process].keys() <= needed, component
        assert {name for name, readers in READERS.items() if process in readers} <= needed
        started = run_program("import assay.settings", given)
        assert started.returncode == 0, f"{component}: {started.stderr}"


def test_every_process_is_who_it_is_in_the_compose_file() -> None:
    for component, service in PROCESSES.items():
        given = environment(pods("default")[component])
        process = given["ASSAY_PROCESS"]
        role = OWNER if process == "migrate" else ROLES[database_role(process)].name
        assert given["DATABASE_URL"].startswith(f"postgresql://{role}@"), component
        assert given["REDIS_USERNAME"] == PREFIX + BROKER_USERS[service]
        assert given["REDIS_URL"].startswith("rediss://")


def test_every_process_mounts_what_it_does_in_the_compose_file() -> None:
    for component, service in PROCESSES.items():
        (container,) = pods("default")[component]["containers"]
        mounted = set()
        for each in container["volumeMounts"]:
            if each["name"] in {"tmp", "secrets", "broker-authority"}:
                continue
            where = each["mountPath"]
            name = where if where == "/var/lib/scratch" else where.rpartition("/")[2]
            # The volume's name in compose.yaml.
            name = name.replace("audit-exports", "exports").replace("backups", "/srv/backups")
            mounted.add(name + (":ro" if each.get("readOnly") else ""))
            assert each["name"] != "data" or each["subPath"] == where.rpartition("/")[2]
        assert mounted == STORES[service], component


def test_a_store_in_a_bucket_takes_the_place_of_the_folder() -> None:
    for component, pod in pods("full").items():
        if component in {"migrate", "mlflow"}:
            continue
        mounts = {each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
        assert "/var/lib/assay/store-cache" in mounts
        assert not {"/var/lib/assay/artifacts", "/var/lib/transparency"} & mounts
        assert environment(pod)["ASSAY_STORE_URL"] == "s3://models/assay"
    assert not [each for each in rendered("full") if each["metadata"]["name"] == "assay-data"]


def egress(component: str, name: str = "default") -> set[Any]:
    """Ports that a pod may reach."""
    policy = named(name, "NetworkPolicy", component)["spec"]
    return {port["port"] for rule in policy["egress"] for port in rule["ports"]}


def test_every_process_reaches_what_it_does_in_the_compose_file() -> None:
    nothing = named("default", "NetworkPolicy", "nothing-else")["spec"]
    assert nothing.keys() == {"podSelector", "policyTypes"}
    assert nothing["policyTypes"] == ["Ingress", "Egress"]
    ports = {"database": 5432, "broker": 6379, "mlflow": 5000, "outside": 443, "providers": 443}
    for component, service in PROCESSES.items():
        networks = NETWORKS[service] - {"edge"}
        assert egress(component) == {53, *(ports[each] for each in networks)}, component
        incoming = named("default", "NetworkPolicy", component)["spec"].get("ingress")
        assert (incoming is not None) == (component == "web"), component
    assert egress("mlflow") == {53, 5432}
    assert egress("web", "full") == {53, 5432, 6379, 5000, 443, 4318}
    assert egress("engine-gpu", "full") == {53, 5432, 6379, 443, 4318}
    assert egress("compute-gpu", "full") == {53, 5432, 6379, 443, 4318, 6443}
    reaching = {
        each["metadata"]["name"]
        for each in rendered("default")
        if each["kind"] == "NetworkPolicy"
        and any(cidr in str(each["spec"]) for cidr in ("0.0.0.0/0", "::/0"))
    }
    assert reaching == {"assay-egress"}
    peers = named("full", "NetworkPolicy", "web")["spec"]["egress"][1]["to"]
    assert peers == FULL["networkPolicy"]["database"]


@pytest.mark.parametrize("name", VALUES)
def test_selectors_find_their_pods(name: str) -> None:
    templates = [
        job["spec"]["template"]["metadata"]["labels"]
        for each in rendered(name)
        if each["kind"] in {"Deployment", "Job", "CronJob"}
        for job in [each["spec"].get("jobTemplate", each)]
    ]
    templates += [
        job["template"]["spec"]["template"]["metadata"]["labels"]
        for each in rendered(name)
        if each["kind"] == "TrainingRuntime"
        for job in each["spec"]["template"]["spec"]["replicatedJobs"]
    ]
    for each in rendered(name):
        spec = each.get("spec", {})
        selector = spec.get("podSelector", spec.get("selector"))
        if selector in (None, {}) or each["kind"] == "ServiceMonitor":
            continue  # The empty one has a test of its own.
        labels = selector.get("matchLabels", selector) if isinstance(selector, dict) else {}
        found = [pod for pod in templates if labels.items() <= pod.items()]
        expected = len(templates) if each["metadata"]["name"].endswith("nothing-else") else 1
        assert len(found) == expected, each["metadata"]["name"]
    for each in rendered(name):
        if target := each.get("spec", {}).get("scaleTargetRef"):
            scaled = named(name, "Deployment", target["name"].removeprefix("assay-"))
            assert "replicas" not in scaled["spec"]


def test_runs_have_what_the_launcher_needs_and_no_more() -> None:
    (runtime,) = (each for each in rendered("full") if each["kind"] == "TrainingRuntime")
    runtime_check(runtime)
    assert runtime["spec"]["podGroupPolicy"] == FULL["runs"]["podGroupPolicy"]
    given = environment(pods("full")["compute-gpu"])
    assert given["ASSAY_LAUNCHER"] == "kubernetes"
    assert given["ASSAY_KUBERNETES_NAMESPACE"] == "runs"
    assert given["ASSAY_KUBERNETES_RUNTIME"] == runtime["metadata"]["name"]
    assert "ASSAY_LAUNCHER" not in environment(pods("full")["engine-gpu"])
    (role,) = (each for each in rendered("full") if each["kind"] == "Role")
    assert {each for rule in role["rules"] for each in rule["resources"]} == {
        "trainjobs", "trainingruntimes", "pods", "pods/log", "networkpolicies",
    }  # fmt: skip
    assert not {each for rule in role["rules"] for each in rule["verbs"]} & {"*", "update", "patch"}
    (binding,) = (each for each in rendered("full") if each["kind"] == "RoleBinding")
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "assay-compute", "namespace": "models"}
    ]
    (policy,) = (
        each["spec"]
        for each in rendered("full")
        if each["kind"] == "NetworkPolicy" and each["metadata"]["namespace"] == "runs"
    )
    # A policy for some labels would not bind a pod whose TrainJob gives it others.
    assert policy["podSelector"] == {}
    assert "ingress" not in policy
    (names,) = (rule["to"] for rule in policy["egress"])
    assert names[0]["podSelector"]["matchLabels"] == {"k8s-app": "kube-dns"}
    kinds = {each["kind"] for each in rendered("default")}
    assert not kinds & {"Role", "RoleBinding", "ServiceAccount", "TrainingRuntime"}


def test_alerts_and_dashboard_are_the_files_that_other_installations_use() -> None:
    groups = [
        group
        for file in sorted(PROMETHEUS.glob("*.rules.yaml"))
        for group in yaml.safe_load(file.read_text())["groups"]
    ]
    assert named("full", "PrometheusRule", "alerts")["spec"]["groups"] == groups
    dashboard = named("full", "ConfigMap", "dashboard")
    assert json.loads(dashboard["data"]["assay.json"]) == json.loads(
        (PROMETHEUS / "assay-dashboard.json").read_text()
    )
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    (endpoint,) = named("full", "ServiceMonitor", "web")["spec"]["endpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": "assay-web", "key": "metrics_token"}


def test_pools_scale_on_metrics_that_exist() -> None:
    scaled = [each["spec"] for each in rendered("full") if each["kind"] == "ScaledObject"]
    assert len(scaled) == 3
    for spec in scaled:
        (trigger,) = spec["triggers"]
        check(trigger["metadata"]["query"], EXPOSED)
        assert float(trigger["metadata"]["threshold"]) > 0


def test_a_pool_with_gpus_asks_for_them_and_keeps_its_other_limits() -> None:
    (container,) = pods("full")["engine-gpu"]["containers"]
    assert container["resources"]["limits"] == {"memory": "64Gi", "nvidia.com/gpu": 1}
    assert pods("full")["engine-gpu"]["nodeSelector"] == {"accelerator": "h100"}
    assert "nvidia.com/gpu" not in str(pods("full")["engine-cpu"])


def test_a_backup_is_made_each_night_and_restored_by_a_job_of_its_own() -> None:
    cron = named("full", "CronJob", "backup")["spec"]
    assert cron["concurrencyPolicy"] == "Forbid"
    found = pods("full")
    assert found["backup"]["containers"][0]["args"] == ["backup", "make", "/backups"]
    assert found["restore"]["containers"][0]["args"] == [
        "backup", "restore", "/backups/2026-11-27T174200Z", "--accept-lost-events", "3"
    ]  # fmt: skip
    for component in ("backup", "restore"):
        (claim,) = [each for each in found[component]["volumes"] if each["name"] == "backups"]
        assert claim["persistentVolumeClaim"] == {"claimName": "backups"}
    without = shipped.pods(shipped.rendered())
    assert not {"backup", "restore"} & without.keys()


def test_the_database_is_migrated_before_an_install_and_an_upgrade() -> None:
    job = named("full", "Job", "migrate")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["init", "--admin", "ada@example.org", "--name", "Ada"]
    assert pods("default")["migrate"]["containers"][0]["args"] == ["migrate"]
    for component in ("web", "engine-cpu"):
        assert named("full", "Deployment", component)["spec"]["strategy"]["type"] == "Recreate"


WRONG: tuple[dict[str, Any], ...] = (
    {"replicas": 3},
    {"portal": {"url": "http://assay.example"}},
    {"portal": {"hosts": []}},
    {"store": {"url": "gs://bucket"}},
    {"web": {"replicas": "two"}},
    {"engine": {"cpu": {"gpu": 1}}},
    {"engine": {"GPU": POOL}},
    {"environment": {"ASSAY_WIRE_KEY": "secret"}},
    {"environment": {"ASSAY_DEBUG": 1}},
    {"database": {"port": 70000}},
    {"runs": {"enabled": True, "namespace": "runs"}},
    {"runs": {"enabled": True, "claim": "shared"}},
    {"runs": {"enabled": True, "claim": "shared", "namespace": "models"}},
    {"runs": {"backoffLimit": 6}},
    {"runs": {"admissionPolicy": "no"}},
    {"backup": {"restore": "2026-11-27T174200Z"}},
    {"backup": {"claim": "backups", "restore": "../other"}},
    {"backup": {"claim": "backups", "schedule": "daily"}},
)


@pytest.mark.parametrize("values", WRONG, ids=str)
def test_wrong_values_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(helm.HelmError):
        chart().render(values, name="assay", namespace="models")


def test_every_process_asks_the_database_for_tls() -> None:
    for component, pod in pods("default").items():
        assert environment(pod)["DATABASE_URL"].endswith("?sslmode=require"), component
    (container,) = pods("default")["mlflow"]["containers"]
    assert '--backend-store-uri "$DATABASE_URL"' in container["args"][0]


def test_mlflow_of_your_own_needs_its_address() -> None:
    values = copy.deepcopy(FULL)
    values["mlflow"] = {"enabled": False}
    with pytest.raises(helm.HelmError, match=r"mlflow\.url"):
        chart().render(values, name="assay", namespace="models")


def test_two_controllers_run_on_different_machines_and_one_remains_in_a_disruption() -> None:
    deployment = named("default", "Deployment", "controller")["spec"]
    assert deployment["replicas"] == 2
    pod = pods("default")["controller"]
    (preferred,) = pod["affinity"]["podAntiAffinity"][
        "preferredDuringSchedulingIgnoredDuringExecution"
    ]
    term = preferred["podAffinityTerm"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    own = deployment["selector"]["matchLabels"]
    assert term["labelSelector"]["matchLabels"] == own
    budget = named("default", "PodDisruptionBudget", "controller")["spec"]
    assert budget == {"maxUnavailable": 1, "selector": {"matchLabels": own}}
    assert environment(pods("default")["web"])["ASSAY_CONTROLLERS"] == "2"


def test_mlflow_of_your_own_is_reached_by_web_and_controller_alone() -> None:
    own = {"enabled": False, "url": "https://mlflow.example:8443"}
    values = {"mlflow": own, "networkPolicy": {"mlflowPort": 8443}}
    texts = chart().render(values, name="assay", namespace="models")
    (text,) = (text for path, text in texts.items() if path.endswith("network.yaml"))
    reached = {
        policy["metadata"]["name"]
        for policy in yaml.safe_load_all(text)
        for rule in policy["spec"].get("egress", ())
        if {"port": 8443, "protocol": "TCP"} in rule["ports"]
    }
    assert reached == {"assay-web", "assay-controller"}


def test_the_schema_refuses_every_secret_in_the_environment() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    refused = schema["properties"]["environment"]["propertyNames"]["not"]["pattern"]
    assert set(refused[2:-2].split("|")) == {*HOLDERS, "DATABASE_PASSWORD", "REDIS_PASSWORD"}


def test_a_pool_that_comes_with_the_chart_can_be_removed() -> None:
    texts = chart().render({"engine": {"cpu": None, "gpu": POOL}}, name="assay", namespace="models")
    assert "assay-engine-gpu" in str(texts)
    assert "assay-engine-cpu" not in str(texts)
