"""No Docker engine runs these files in the tests, so everything they name is checked to exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from prometheus_client import Gauge

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
SETTINGS = (ROOT / "platform" / "assay" / "settings.py").read_text()
# The parts of https://github.com/compose-spec/compose-spec/blob/main/schema/compose-spec.json used.
SERVICE = {
    "type": "object",
    "additionalProperties": False,
    "anyOf": [{"required": ["image"]}, {"required": ["build"]}],
    "properties": {
        "build": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "context": {"type": "string"},
                "dockerfile": {"type": "string"},
                "target": {"type": "string"},
            },
        },
        "image": {"type": "string"},
        "command": {"type": "array", "items": {"type": "string"}},
        "entrypoint": {"type": "array", "items": {"type": "string"}},
        "environment": {"type": "object", "additionalProperties": {"type": "string"}},
        "secrets": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        "volumes": {"type": "array", "items": {"type": "string"}},
        "ports": {"type": "array", "items": {"type": "string"}},
        "tmpfs": {"type": "array"},
        "profiles": {"type": "array", "items": {"type": "string"}},
        "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
        "read_only": {"type": "boolean"},
        "security_opt": {"type": "array"},
        "cap_drop": {"type": "array"},
        "depends_on": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "properties": {
                    "condition": {
                        "enum": [
                            "service_started",
                            "service_healthy",
                            "service_completed_successfully",
                        ]
                    }
                },
                "required": ["condition"],
            },
        },
        "healthcheck": {"type": "object", "required": ["test"]},
        "deploy": {"type": "object"},
    },
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return loaded


def test_every_service_follows_the_compose_schema(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        try:
            jsonschema.validate(service, SERVICE)
        except jsonschema.ValidationError as error:
            pytest.fail(f"{name}: {error.message}")


def test_every_volume_secret_and_dependency_exists(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert set(service.get("secrets", [])) <= set(compose["secrets"]), name
        assert set(service.get("depends_on", {})) <= set(compose["services"]), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (DOCKER / source).exists(), source
            else:
                assert source in compose["volumes"], source


def test_every_setting_that_compose_names_is_read_by_the_settings(compose: dict[str, Any]) -> None:
    entrypoint = (DOCKER / "entrypoint.sh").read_text()
    for name, service in compose["services"].items():
        for variable in service.get("environment", {}):
            if variable.startswith(("POSTGRES_", "MLFLOW_SERVER", "MLFLOW_DISABLE")):
                continue
            setting = variable.removesuffix("_FILE")
            assert f'"{setting}"' in SETTINGS or setting in entrypoint, f"{name}: {variable}"


def test_every_role_and_build_target_exists(compose: dict[str, Any]) -> None:
    dockerfile = (DOCKER / "Dockerfile").read_text()
    entrypoint = (DOCKER / "entrypoint.sh").read_text()
    roles = set(re.findall(r"^(\w+)\)$", entrypoint, re.MULTILINE))
    assert {"web", "worker", "beat", "migrate", "broker_users"} <= roles
    targets = set(re.findall(r"AS (\w+)$", dockerfile, re.MULTILINE))
    for name, service in compose["services"].items():
        build = service.get("build", {})
        if "target" in build:
            assert build["target"] in targets, name
            assert service["command"][0] in roles, name
        if "dockerfile" in build:
            assert (ROOT / build["dockerfile"]).is_file(), name


def test_every_folder_that_a_process_writes_to_is_its_own(compose: dict[str, Any]) -> None:
    """A volume over a path that the image lacks belongs to root, and the image runs as `assay`."""
    dockerfile = (DOCKER / "Dockerfile").read_text()
    owned = re.findall(r"--home-dir (\S+) --create-home assay", dockerfile)
    owned += re.findall(r"install -d -o assay (?:-m \d+ )?(\S+)", dockerfile)
    for name, service in compose["services"].items():
        if "target" not in service.get("build", {}):
            continue
        for volume in service["volumes"]:
            assert volume.split(":")[1] in owned, f"{name}: {volume}"


def test_every_path_that_the_image_copies_exists() -> None:
    for file in ("Dockerfile", "mlflow.Dockerfile"):
        for line in (DOCKER / file).read_text().splitlines():
            if line.startswith("COPY ") and "--from" not in line:
                for source in line.split()[1:-1]:
                    assert (ROOT / source).exists(), f"{file}: {source}"


def test_the_image_does_not_run_as_root() -> None:
    for file in ("Dockerfile", "mlflow.Dockerfile"):
        text = (DOCKER / file).read_text()
        last_stage = text.rsplit("\nFROM ", 1)[-1]
        assert re.search(r"^USER (?!root)\w+$", last_stage, re.MULTILINE), file


def test_the_entrypoint_is_valid_shell_and_its_commands_exist() -> None:
    subprocess.run(["sh", "-n", str(DOCKER / "entrypoint.sh")], check=True)
    entrypoint = (DOCKER / "entrypoint.sh").read_text()
    for command in re.findall(r"assay manage (\w+)", entrypoint):
        found = list(ROOT.glob(f"*/**/management/commands/{command}.py"))
        assert found or command == "migrate", command
    for module in re.findall(r"-I ([\w.]+)", entrypoint):
        assert (ROOT / (module.replace(".", "/") + ".py")).is_file(), module


def test_an_unknown_role_is_refused_with_the_roles_that_exist() -> None:
    finished = subprocess.run(
        ["sh", str(DOCKER / "entrypoint.sh"), "gpu"], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 64
    assert "web, beat, init, migrate, broker_users or worker" in finished.stderr


def test_uploads_wait_on_a_disk_of_the_web_process_alone(compose: dict[str, Any]) -> None:
    (folder,) = re.findall(r"ASSAY_UPLOAD_DIR=(\S+)", (DOCKER / "Dockerfile").read_text())
    (volume,) = (
        volume.split(":")[0]
        for volume in compose["services"]["web"]["volumes"]
        if volume.split(":")[1] == folder
    )
    for name, service in compose["services"].items():
        sources = [mounted.split(":")[0] for mounted in service.get("volumes", [])]
        assert (volume in sources) == (name == "web"), name
        assert folder not in service.get("tmpfs", []), name


def test_alert_rules_of_emergencies_ask_for_metrics_that_exist() -> None:
    from assay.gateway import emergencies

    found = [thing for thing in vars(emergencies).values() if isinstance(thing, Gauge)]
    gauges = {gauge.describe()[0].name for gauge in found}
    text = (DOCKER / "prometheus/assay-emergencies.rules.yaml").read_text()
    (group,) = yaml.safe_load(text)["groups"]
    asked = set()
    for rule in group["rules"]:
        assert rule["labels"]["severity"] == "critical"
        assert rule["annotations"].keys() == {"summary", "description"}
        asked |= set(re.findall(r"assay_\w+", rule["expr"]))
    assert asked
    assert asked <= gauges


def test_alert_rules_of_releases_ask_for_metrics_that_exist() -> None:
    from assay.gateway.metrics import RELEASE_EXPIRES, RELEASE_STOPS

    gauges = {gauge.describe()[0].name for gauge in (RELEASE_EXPIRES, RELEASE_STOPS)}
    rules = DOCKER / "prometheus/assay-releases.rules.yaml"
    (group,) = yaml.safe_load(rules.read_text())["groups"]
    asked = set()
    for rule in group["rules"]:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"].keys() == {"summary", "description"}
        asked |= set(re.findall(r"assay_\w+", rule["expr"]))
    assert asked == gauges


def test_alert_rules_ask_for_metrics_and_alarms_that_exist() -> None:
    from assay.gateway import log_health
    from governance.audit.alarms import ALARMS

    found = [thing for thing in vars(log_health).values() if isinstance(thing, Gauge)]
    gauges = {gauge.describe()[0].name for gauge in found}
    names = {alarm.name for alarm in ALARMS}
    (group,) = yaml.safe_load((DOCKER / "prometheus/assay-audit.rules.yaml").read_text())["groups"]
    asked = set()
    for rule in group["rules"]:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"].keys() == {"summary", "description"}
        asked |= set(re.findall(r"assay_audit_\w+", rule["expr"]))
        for alarms in re.findall(r'alarm[=!]~"([^"]*)"', rule["expr"]):
            assert set(alarms.split("|")) <= names, alarms
    assert asked <= gauges
