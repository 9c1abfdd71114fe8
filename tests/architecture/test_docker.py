"""No Docker engine runs these files in the tests, so everything they name is checked to exist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from assay.broker_users import PREFIX, USERS
from assay.database_roles.privileges import OWNER, ROLES
from assay.processes import HOLDERS, PROCESSES, READERS, check_process
from governance.audit.checkpoint import Signer
from tests.architecture.test_settings import NEEDED

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
        "networks": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        "network_mode": {"const": "none"},
        "user": {"type": "string"},
        "mem_limit": {"type": "string"},
        "shm_size": {"type": "string"},
        "pids_limit": {"type": "integer"},
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
            elif not source.startswith("/"):  # One of the container's own.
                assert source in compose["volumes"], source


def test_as_many_controllers_run_as_are_expected(compose: dict[str, Any]) -> None:
    expected = compose["services"]["web"]["environment"]["ASSAY_CONTROLLERS"]
    assert str(compose["services"]["controller"]["deploy"]["replicas"]) == expected == "2"


def test_a_store_in_a_bucket_changes_services_that_exist(compose: dict[str, Any]) -> None:
    """Web and workers share no cache, and workers have no key that writes."""
    added = yaml.safe_load((DOCKER / "compose.bucket.yaml").read_text())
    caches: dict[str, set[str]] = {}
    for name, service in added["services"].items():
        assert name in compose["services"], name
        assert set(service["networks"]) <= set(added["networks"])
        assert set(service["secrets"]) <= set(added["secrets"])
        (cache,) = service["volumes"]
        caches.setdefault(cache.partition(":")[0], set()).add(of(name))
        role = "reader" if name.startswith("worker") else "writer"
        assert service["secrets"] == [f"store_{role}_id", f"store_{role}_key"]
        for variable in service["environment"]:
            assert f'"{variable.removesuffix("_FILE")}"' in SETTINGS, variable
    assert set(caches) == set(added["volumes"])
    assert all(len(users) == 1 for users in caches.values())


def test_a_node_has_neither_database_nor_store_and_no_way_in() -> None:
    node = yaml.safe_load((DOCKER / "compose.node.yaml").read_text())
    (service,) = node["services"].values()
    jsonschema.validate(service, SERVICE)
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "ports" not in service
    given = service["environment"]
    assert set(service["secrets"]) == set(node["secrets"])
    assert {f"/run/secrets/{name}" for name in node["secrets"]} <= set(given.values())
    assert NEEDED["node"].keys() <= {each.removesuffix("_FILE") for each in given} | given.keys()
    check_process("node", given, production=True)
    assert (DOCKER / "entrypoint.sh").read_text().count("-I workers.celery_tasks.inference") == 3


def test_every_setting_that_compose_names_is_read_by_the_settings(compose: dict[str, Any]) -> None:
    entrypoint = (DOCKER / "entrypoint.sh").read_text()
    for name, service in compose["services"].items():
        for variable in service.get("environment", {}):
            if variable.startswith(("POSTGRES_", "MLFLOW_SERVER", "MLFLOW_DISABLE", "OTEL_")):
                continue
            setting = variable.removesuffix("_FILE")
            assert f'"{setting}"' in SETTINGS or setting in entrypoint, f"{name}: {variable}"


def test_every_role_and_build_target_exists(compose: dict[str, Any]) -> None:
    dockerfile = (DOCKER / "Dockerfile").read_text()
    entrypoint = (DOCKER / "entrypoint.sh").read_text()
    roles = set(re.findall(r"^(\w+)\)$", entrypoint, re.MULTILINE))
    assert roles == {*PROCESSES, "init", "backup"}
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
    dockerfile = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    owned = re.findall(r"--home-dir (\S+) --create-home assay", dockerfile)
    for paths in re.findall(r"install -d -o assay (.+?)(?:&&|\n)", dockerfile):
        owned += [path for path in paths.split() if path.startswith("/")]
    for name, service in compose["services"].items():
        if "target" not in service.get("build", {}):
            continue
        for volume in service.get("volumes", []):
            # Its folder on the host is made by hand.
            assert volume == BACKUPS or place(volume) in owned, f"{name}: {volume}"


def place(volume: str) -> str:
    """The mount point of a volume."""
    parts = volume.split(":")
    return parts[1] if len(parts) > 1 else parts[0]


BACKUPS = "/srv/backups:/backups"
# The volumes of each process; `:ro` where it only reads.
STORES = {
    "web": {
        "artifacts",
        "quarantine",
        "media",
        "files",
        "work",
        "exports:ro",
        "transparency:ro",
        "uploads",
    },
    "controller": {"artifacts", "quarantine", "media", "files", "work", "exports", "transparency"},
    "migrate": set(),
    "backup": {"artifacts", "transparency:ro", "/srv/backups"},
    "worker-compute": {"artifacts:ro", "quarantine:ro", "work", "/var/lib/scratch"},
    "worker-engine": {"artifacts:ro", "media", "/var/lib/scratch"},
    "worker-egress": {"artifacts:ro", "media", "work"},
    "mlflow": {"mlflow"},
    "postgres": {"postgres", "./initdb:ro"},
    "broker-users": {"broker-users"},
    "valkey": {"valkey", "broker-users:ro"},
}
NETWORKS = {
    "web": {"edge", "database", "broker", "mlflow"},
    "controller": {"outside", "database", "broker", "mlflow"},
    "migrate": {"database", "broker"},
    "backup": {"outside", "database", "broker"},
    "worker-compute": {"database", "broker"},
    "worker-engine": {"database", "broker"},
    "worker-egress": {"providers", "database", "broker"},
    "mlflow": {"mlflow", "mlflow-database"},
    "postgres": {"database", "mlflow-database"},
    "broker-users": set(),
    "valkey": {"broker"},
}


def of(name: str) -> str:
    """A service without its GPU."""
    return name.removesuffix("-gpu")


def test_every_container_is_bounded(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert 0 < service["pids_limit"] <= 1024, name
        assert "/tmp" in service["tmpfs"], name
        assert not {"privileged", "cap_add"} & service.keys(), name
        if "target" not in service.get("build", {}) and name != "mlflow":
            assert service["user"] not in {"", "0", "root"}, name


def test_every_process_mounts_what_it_uses_and_writes_where_it_must(
    compose: dict[str, Any],
) -> None:
    for name, service in compose["services"].items():
        mounted = {
            volume.split(":")[0] + (":ro" if volume.endswith(":ro") else "")
            for volume in service.get("volumes", [])
        }
        assert mounted == STORES[of(name)], name


def test_every_process_reaches_what_it_uses(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert set(service.get("networks", [])) == NETWORKS[of(name)], name
        # Compose gives a network that leads out to a service that names none.
        assert ("network_mode" in service) == ("networks" not in service), name
        assert ("ports" in service) == (name == "web"), name
    inner = {name for name, network in compose["networks"].items() if network.get("internal")}
    assert compose["networks"].keys() - inner == {"edge", "outside", "providers"}
    assert inner == {"database", "mlflow-database", "broker", "mlflow"}


def test_every_process_holds_its_own_secrets_as_files(compose: dict[str, Any]) -> None:
    hidden = set(HOLDERS) | {"DATABASE_PASSWORD", "POSTGRES_PASSWORD", "REDIS_PASSWORD"}
    for name, service in compose["services"].items():
        process = service.get("environment", {}).get("ASSAY_PROCESS", "")
        own = "migrate" if name == "backup" else name.replace("-", "_")
        own = "egress" if name == "worker-egress" else own
        worker = name.startswith("worker") and own != "egress"
        assert process == ("worker" if worker else process if process == own else "")
        files = set()
        for variable, value in service.get("environment", {}).items():
            setting = variable.removesuffix("_FILE")
            if setting in HOLDERS:
                assert process in HOLDERS[setting], f"{name}: {variable}"
            if setting in hidden:
                assert variable.endswith("_FILE"), f"{name}: {variable} is in the environment"
            if variable.endswith("_FILE") or value.startswith("/run/secrets/"):
                files.add(value.removeprefix("/run/secrets/"))
            assert not re.search(r"://[^/@]*:[^/@]*@", value), f"{name}: {variable}"
        text = " ".join(service.get("command", []))
        files |= set(re.findall(r"/run/secrets/(\w+)", text))
        if name == "postgres":
            text = (DOCKER / "initdb" / "assay.sh").read_text()
            files |= set(re.findall(r"/run/secrets/(\w+)", text))
        assert set(service.get("secrets", [])) == files, name


def test_every_process_has_the_settings_that_it_cannot_do_without(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        given = service.get("environment", {})
        process = given.get("ASSAY_PROCESS")
        needed = {setting for setting, readers in READERS.items() if process in readers}
        assert needed <= {each.removesuffix("_FILE") for each in given}, name
    second_place = [name for name, volumes in STORES.items() if "transparency" in str(volumes)]
    assert second_place == ["web", "controller", "backup"]


def test_every_process_connects_in_its_own_database_role(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        process = service.get("environment", {}).get("ASSAY_PROCESS")
        if process in {None, "broker_users"}:
            continue
        role = OWNER if process == "migrate" else ROLES[database_role(process)].name
        assert service["environment"]["DATABASE_URL"].startswith(f"postgresql://{role}@"), name
        password = service["environment"]["DATABASE_PASSWORD_FILE"]
        assert password.endswith(f"/database_password_{role.removeprefix('assay_')}"), name


def database_role(process: str) -> str:
    """The role of a process in the database; egress workers are engine workers there."""
    return "worker" if process == "egress" else process


# `migrate` tells web that policies changed, as web does itself.
BROKER_USERS = {
    "web": "web",
    "migrate": "web",
    "backup": "web",
    "controller": "controller",
    "worker-compute": "compute",
    "worker-engine": "engine",
    "worker-egress": "engine",
}


def test_every_process_is_its_own_user_of_the_broker_over_tls(compose: dict[str, Any]) -> None:
    assert set(BROKER_USERS.values()) == set(USERS)
    for name, service in compose["services"].items():
        environment = service.get("environment", {})
        user = BROKER_USERS.get(of(name))
        assert ("REDIS_URL" in environment) == (user is not None), name
        if user is None:
            continue
        assert environment["REDIS_URL"].startswith("rediss://valkey:"), name
        assert environment["REDIS_CA_PATH"] == "/run/secrets/valkey_ca", name
        assert environment["REDIS_USERNAME"] == PREFIX + user, name
        assert environment["REDIS_PASSWORD_FILE"] == f"/run/secrets/valkey_{user}", name
    listing = dict(pairwise(compose["services"]["valkey"]["command"]))
    assert listing["--port"] == "0"
    assert listing["--aclfile"] == "/etc/broker/users.acl"
    holders = {name for name in compose["services"] if holds_secret(compose, name, "valkey_key")}
    assert holders == {"valkey"}
    holders = {name for name in compose["services"] if holds_secret(compose, name, "usage_key")}
    assert holders == {"web", "controller"}


def holds_secret(compose: dict[str, Any], name: str, secret: str) -> bool:
    return secret in compose["services"][name].get("secrets", [])


def test_the_certificate_of_the_broker_is_for_its_name_and_by_its_authority(tmp_path: Path) -> None:
    subprocess.run([DOCKER / "make-secrets.sh", tmp_path], check=True, capture_output=True)
    authority, certificate = (
        x509.load_pem_x509_certificate((tmp_path / name).read_bytes())
        for name in ("valkey_ca", "valkey_cert")
    )
    certificate.verify_directly_issued_by(authority)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["valkey"]
    key = load_pem_private_key((tmp_path / "valkey_key").read_bytes(), None)
    assert key.public_key() == certificate.public_key()
    made = [file.read_text() for file in tmp_path.iterdir()]
    assert sum("PRIVATE KEY" in text for text in made) == 1


def test_secrets_are_made_once_and_the_public_key_is_that_of_the_signing_key(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "secrets"
    for _ in range(2):
        subprocess.run([DOCKER / "make-secrets.sh", folder], check=True, capture_output=True)
        made = {file.name: file.read_text() for file in folder.iterdir()}
    assert made.keys() == compose["secrets"].keys()
    assert {file: f"./secrets/{file}" for file in made} == {
        name: secret["file"] for name, secret in compose["secrets"].items()
    }
    assert folder.stat().st_mode & 0o777 == 0o700
    again = {file.name: file.read_text() for file in folder.iterdir()}
    assert again == made
    seed = bytes.fromhex(made["audit_signing_key"])
    assert made["audit_public_key"].strip() == Signer("assay.example/audit", seed).public_key
    optional = {name for name, text in made.items() if not text}
    assert {"oidc_client_secret", "scim_token", "siem_streams"} <= optional
    assert not {name for name in optional if name.startswith("database_password")}


DIGEST = "sha256:" + "ab" * 32
# Answers as `docker buildx imagetools inspect`, which needs a registry.
REGISTRY = f'#!/bin/sh\n[ "$2" = imagetools ] && echo "{DIGEST}"\n'


def test_images_can_be_pinned_by_digest(tmp_path: Path) -> None:
    copy = tmp_path / "docker"
    shutil.copytree(DOCKER, copy, ignore=shutil.ignore_patterns("secrets"))
    (tmp_path / "docker-tool").mkdir()
    tool = tmp_path / "docker-tool" / "docker"
    tool.write_text(REGISTRY)
    tool.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tool.parent}:{os.environ['PATH']}"}

    def pin(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [copy / "pin-images.sh", *options],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    loose = pin("--check")
    assert loose.returncode == 1
    assert "postgres:18-bookworm" in loose.stderr
    assert pin().returncode == 0
    assert pin("--check").returncode == 0
    # Once more, for a tag that has moved.
    assert pin().returncode == 0
    compose = yaml.safe_load((copy / "compose.yaml").read_text())
    assert compose["services"]["postgres"]["image"] == f"postgres:18-bookworm@{DIGEST}"
    stages = re.findall(r"^FROM (\S+)", (copy / "Dockerfile").read_text(), re.MULTILINE)
    assert stages == [
        f"python:3.11-slim-bookworm@{DIGEST}",
        f"python:3.11-slim-bookworm@{DIGEST}",
        "base",
        "control",
        "base",
    ]


def test_every_path_that_the_image_copies_exists() -> None:
    for file in ("Dockerfile", "mlflow.Dockerfile"):
        for line in (DOCKER / file).read_text().splitlines():
            if line.startswith("COPY ") and "--from" not in line:
                for source in line.split()[1:-1]:
                    assert (ROOT / source).exists(), f"{file}: {source}"


def test_the_image_copies_every_package_that_its_wheel_is_to_hold() -> None:
    # The build leaves out a missing package without an error.
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    packages = {Path(each).parts[0] for each in build["targets"]["wheel"]["packages"]}
    copied = re.findall(r"^COPY (\w+) \1$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    assert packages <= set(copied)


def test_the_image_does_not_run_as_root() -> None:
    for file in ("Dockerfile", "mlflow.Dockerfile"):
        text = (DOCKER / file).read_text()
        last_stage = text.rsplit("\nFROM ", 1)[-1]
        assert re.search(r"^USER (?!root)\w+$", last_stage, re.MULTILINE), file


def test_the_entrypoint_is_valid_shell_and_its_commands_exist() -> None:
    subprocess.run(["sh", "-n", str(DOCKER / "entrypoint.sh")], check=True)
    entrypoint = (DOCKER / "entrypoint.sh").read_text()
    for command in re.findall(r"assay manage (\w+)", entrypoint):
        found = [
            path
            for package in ("platform", "governance", "registry", "workers")
            for path in (ROOT / package).glob(f"**/management/commands/{command}.py")
        ]
        assert found or command == "migrate", command
    for module in re.findall(r"-I ([\w.]+)", entrypoint):
        assert (ROOT / (module.replace(".", "/") + ".py")).is_file(), module


def test_an_unknown_process_is_refused_with_those_that_exist() -> None:
    finished = subprocess.run(
        ["sh", str(DOCKER / "entrypoint.sh"), "gpu"], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 64
    kinds = "web, controller, init, migrate, backup, broker_users, node, egress or worker"
    assert kinds in finished.stderr


def test_uploads_wait_on_a_disk_of_the_web_process_alone(compose: dict[str, Any]) -> None:
    (folder,) = re.findall(r"ASSAY_UPLOAD_DIR=(\S+)", (DOCKER / "Dockerfile").read_text())
    (volume,) = (
        volume.split(":")[0]
        for volume in compose["services"]["web"]["volumes"]
        if place(volume) == folder
    )
    for name, service in compose["services"].items():
        sources = [mounted.split(":")[0] for mounted in service.get("volumes", [])]
        assert (volume in sources) == (name == "web"), name
        assert folder not in service.get("tmpfs", []), name
