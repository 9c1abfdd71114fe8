"""No systemd starts the units in tests: it verifies them, and tests compare them with the rest."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from assay.broker_users import PREFIX
from assay.database_roles.privileges import OWNER, ROLES
from assay.processes import HOLDERS, READERS, check_process
from tests.architecture.interpreters import run_program
from tests.architecture.test_docker import BROKER_USERS, STORES, database_role
from tests.architecture.test_settings import NEEDED
from tests.shipped import HARDENING
from tests.shipped import SYSTEMD as FOLDER
from tests.shipped import of_systemd as environment
from tests.shipped import unit as read
from workers.launchers.memory import WORKER_GROUP

ROOT = Path(__file__).resolve().parents[2]
# Our units, and the services of compose.yaml that run the same process.
UNITS = {
    "web": "web",
    "controller": "controller",
    "compute": "worker-compute",
    "engine": "worker-engine",
    "egress": "worker-egress",
    "migrate": "migrate",
}
STARTED = (*UNITS, "node")
# Of 100: the least is the least exposed. An engine worker confines servers by namespaces.
EXPOSURE = {"engine": 25, "node": 25, "compute": 20}
BACKUPS = "ReadWritePaths=/srv/backups"
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed"
)


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The units where this machine has their programs, as an environment for systemd-analyze."""
    folder = tmp_path_factory.mktemp("units") / "system"
    shutil.copytree(FOLDER, folder)
    for file in folder.glob("*.service"):
        file.write_text(re.sub(r"/opt/assay/\w+/bin/\w+", "/bin/true", file.read_text()))
    return {"PATH": os.environ["PATH"], "SYSTEMD_UNIT_PATH": f"{folder}:"}


@needs_systemd
def test_systemd_finds_no_fault_in_the_units(verified: dict[str, str]) -> None:
    folder = Path(verified["SYSTEMD_UNIT_PATH"].removesuffix(":"))
    units = sorted([*folder.glob("*.service"), *folder.glob("*.target")])
    ran = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units],
        env=verified,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("name", [*STARTED, "mlflow"])
def test_a_unit_is_hardly_exposed(name: str, verified: dict[str, str]) -> None:
    most = str(EXPOSURE.get(name, 15))
    ran = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={most}",
         f"assay-{name}.service"],
        env=verified, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("name", STARTED)
def test_a_unit_holds_its_own_secrets_as_credentials(name: str) -> None:
    unit, given = read(name), environment(name)
    process = given["ASSAY_PROCESS"]
    files = {key: value for key, value in given.items() if value.startswith("%d/")}
    for variable in given:
        setting = variable.removesuffix("_FILE")
        if setting in HOLDERS:
            assert process in HOLDERS[setting], variable
            assert variable in files, f"{variable} is in the environment"
    loaded = dict(each.split(":") for each in unit["LoadCredential"])
    assert {value.removeprefix("%d/") for value in files.values()} == loaded.keys()
    assert all(path == f"/etc/assay/secrets/{key}" for key, path in loaded.items())
    assert NEEDED[process].keys() <= {key.removesuffix("_FILE") for key in given} | given.keys()
    if name == "node":
        check_process("node", given, production=True)
        return
    role = OWNER if process == "migrate" else ROLES[database_role(process)].name
    assert given["DATABASE_URL"] == f"postgresql://{role}@/assay"
    assert given["REDIS_USERNAME"] == PREFIX + BROKER_USERS[UNITS[name]]


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_has_the_settings_that_its_process_cannot_do_without(name: str) -> None:
    given = environment(name)
    # The example lists settings that the operator may add, commented out.
    offered = (FOLDER / "portal.env.example").read_text()
    for setting, readers in READERS.items():
        if given["ASSAY_PROCESS"] in readers:
            own = {setting, f"{setting}_FILE"} & given.keys()
            assert own or "/etc/assay/portal.env" in read(name)["EnvironmentFile"], setting
            assert own or f"#{setting}=" in offered, setting


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_sees_the_folders_that_its_process_uses(name: str) -> None:
    # It makes backups, too; the command names what only they use.
    shared = {"transparency:ro"} if name == "migrate" else STORES[UNITS[name]]
    unit = read(name)
    paths = [(path, "") for path in unit["BindPaths"]]
    paths += [(path, ":ro") for path in unit["BindReadOnlyPaths"]]
    bound = set()
    for path, suffix in paths:
        source, target = path.split(":")
        name_of = Path(source).name
        assert target in {f"/var/lib/assay/{name_of}", f"/var/lib/assay-{name_of}"}
        bound.add(name_of.replace("audit-exports", "exports") + suffix)
    # Its own: uploads of web, scratch of workers.
    assert bound == {each for each in shared if each not in {"uploads", "/var/lib/scratch"}}
    assert unit["TemporaryFileSystem"] == ["/var/lib/assay:ro"]
    assert unit["ProtectSystem"] == ["strict"]
    declared = (FOLDER / "assay.tmpfiles.conf").read_text()
    assert all(f"d {path.split(':')[0]} " in declared for path, _ in paths)


def test_a_unit_keeps_files_of_a_bucket_in_a_folder_of_its_own() -> None:
    """The data folder, where they lie by default, cannot be written in a unit."""
    unit = read("web")
    assert unit["CacheDirectory"] == ["%N"]
    assert "ASSAY_STORE_CACHE_DIR=/var/cache/%N" in unit["Environment"]


def test_the_first_administrators_link_leads_to_the_portal() -> None:
    assert environment("migrate")["ASSAY_PORTAL_URL"] == environment("web")["ASSAY_PORTAL_URL"]


def test_a_command_runs_with_the_secrets_and_folders_of_a_unit(tmp_path: Path) -> None:
    programs = {
        "systemctl": f'cat "{FOLDER}/$2.service" "{HARDENING}"',
        "systemd-run": """printf '%s\\n' "$@" """,
    }
    for name, line in programs.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    ran = subprocess.run(
        [FOLDER / "assay-run", f"--property={BACKUPS}", "assay-web", "doctor", "--production"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    given = ran.stdout.splitlines()
    assert given[-3:] == ["/opt/assay/venv/bin/assay", "doctor", "--production"]
    assert f"--property={BACKUPS}" in given
    (name,) = (each.removeprefix("--unit=") for each in given if each.startswith("--unit="))
    for key in ("Environment", "EnvironmentFile", "LoadCredential", "BindPaths"):
        passed = {each for each in given if each.startswith(f"--property={key}=")}
        credentials = f"/run/credentials/{name}.service"
        settings = [
            each.replace("%d", credentials).replace("%N", name) for each in read("web")[key]
        ]
        assert passed == {f"--property={key}={each}" for each in settings}


def test_only_the_compute_worker_may_make_control_groups() -> None:
    for name in STARTED:
        unit = read(name)
        delegates = unit["ProtectControlGroups"][-1] == "no"
        assert delegates is (name == "compute")
        assert unit["DelegateSubgroup"] == ([WORKER_GROUP] if delegates else [])


def test_the_second_controller_has_the_unit_of_the_first() -> None:
    first, second = (
        (FOLDER / f"assay-{name}.service").read_text().partition("\n[Service]")[2]
        for name in ("controller", "controller-2")
    )
    assert first == second
    assert "assay-controller-2.service" in (FOLDER / "assay.target").read_text()
    assert environment("web")["ASSAY_CONTROLLERS"] == "2"


def test_units_run_the_commands_of_the_images() -> None:
    entrypoint = (ROOT / "docker" / "entrypoint.sh").read_text().replace("\\\n", " ")
    for name, module in (("compute", "jobs"), ("engine", "inference")):
        line, *_ = (line for line in entrypoint.splitlines() if f"celery_tasks.{module}" in line)
        image = re.sub(r'"\$\{ASSAY_WORKER_CONCURRENCY:-\d+\}"', "N", line)
        image = image.replace('"', "").replace("$@", "").removeprefix("exec")
        (unit,) = read(name)["ExecStart"]
        unit = unit.replace("${ASSAY_WORKER_CONCURRENCY}", "N").replace("%%", "%")
        words = image.replace("exec ", "").split()
        assert unit.replace("/opt/assay/venv/bin/", "").split() == words, name
    (node,), (engine,) = read("node")["ExecStart"], read("engine")["ExecStart"]
    assert node == engine
    (egress,) = read("egress")["ExecStart"]
    assert egress == engine.replace("engine@", "egress@")
    assert "assay.server" in read("web")["ExecStart"][0]
    assert read("controller")["ExecStart"][0].endswith("assay manage run_controller")
    steps = [each.partition("assay manage ")[2] for each in read("migrate")["ExecStart"]]
    assert all(f"assay manage {step}" in entrypoint for step in steps)


def test_every_process_starts_with_the_settings_of_its_unit(tmp_path: Path) -> None:
    """Each in a fresh interpreter, with files of docker/make-secrets.sh as its credentials."""
    subprocess.run([ROOT / "docker" / "make-secrets.sh", tmp_path], check=True, capture_output=True)
    for name in STARTED:
        started = run_program("import assay.settings", environment(name, str(tmp_path)))
        assert started.returncode == 0, f"{name}: {started.stderr}"
