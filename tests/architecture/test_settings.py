"""Production refuses to start on what is missing or made for development; it names the setting."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from assay.processes import HOLDERS
from tests.architecture.interpreters import run_program

SECRET = "s" * 48
EVERY = {
    "ASSAY_ENV": "production",
    "DATABASE_URL": "postgresql://assay@db/assay",
    "REDIS_URL": "rediss://user:secret@broker:6379/0",
}
# Settings that each process needs in production; most tests start the first process.
NEEDED = {
    "web": {
        **EVERY,
        "ASSAY_PROCESS": "web",
        "ASSAY_SECRET_KEY": SECRET,
        "ASSAY_KEY_PEPPER": SECRET,
        "ASSAY_USAGE_KEY": SECRET,
        "ASSAY_WIRE_KEY": SECRET,
        "ASSAY_AUDIT_PUBLIC_KEY": "assay.example/audit+00000000+AAAA",
        "ASSAY_ALLOWED_HOSTS": "assay.example",
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
    },
    "controller": {
        **EVERY,
        "ASSAY_PROCESS": "controller",
        "ASSAY_AUDIT_SIGNING_KEY": "ab" * 32,
        "ASSAY_USAGE_KEY": SECRET,
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
    },
    "worker": {**EVERY, "ASSAY_PROCESS": "worker"},
    "egress": {**EVERY, "ASSAY_PROCESS": "egress"},
    "node": {
        "ASSAY_ENV": "production",
        "REDIS_URL": "rediss://broker:6379/0",
        "ASSAY_PROCESS": "node",
        "ASSAY_NODE_URL": "https://assay.example",
        "ASSAY_NODE_KEY_FILE": "/etc/assay/node.key",
    },
    "migrate": {**EVERY, "ASSAY_PROCESS": "migrate", "ASSAY_KEY_PEPPER": SECRET},
}
COMPLETE = NEEDED["web"]


def start(
    environment: dict[str, str], code: str = "import assay.settings"
) -> subprocess.CompletedProcess[str]:
    """Run `code` in an interpreter that has imported nothing of ours, with this environment."""
    return run_program(code, environment)


@pytest.mark.parametrize(
    ("given", "roles"), [(None, ["admin"]), ("admin,reviewer", ["admin", "reviewer"]), ("", [])]
)
def test_administrators_need_a_second_factor_by_default(
    given: str | None, roles: list[str]
) -> None:
    environment = COMPLETE if given is None else {**COMPLETE, "ASSAY_SECOND_FACTOR_ROLES": given}
    finished = start(
        environment, "from assay.settings import SECOND_FACTOR_ROLES; print(SECOND_FACTOR_ROLES)"
    )
    assert finished.stdout.strip() == str(roles), finished.stderr


@pytest.mark.parametrize("process", NEEDED)
def test_production_starts_when_everything_is_set(process: str) -> None:
    finished = start(NEEDED[process])
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize(
    ("process", "name"),
    [
        (process, name)
        for process, needed in NEEDED.items()
        for name in needed
        # Engine workers have the wire key too; what a process lacks it says when it needs it.
        if name not in {"ASSAY_ENV", "ASSAY_WIRE_KEY"} and (process == "web" or name not in EVERY)
    ],
)
def test_production_names_the_setting_that_is_missing(process: str, name: str) -> None:
    finished = start({key: value for key, value in NEEDED[process].items() if key != name})
    assert finished.returncode != 0
    assert name in finished.stderr.splitlines()[-1]


@pytest.mark.parametrize("process", NEEDED)
def test_production_refuses_a_secret_that_the_process_does_not_use(process: str) -> None:
    foreign = [name for name, holders in HOLDERS.items() if process not in holders]
    assert foreign
    for name in (foreign[0], f"{foreign[-1]}_FILE"):
        finished = start({**NEEDED[process], name: SECRET})
        last = finished.stderr.splitlines()[-1]
        assert finished.returncode != 0
        assert f"{name} is set, but ASSAY_PROCESS={process} does not use it" in last
        assert SECRET not in finished.stderr


@pytest.mark.parametrize("name", ["DATABASE_URL", "DATABASE_PASSWORD_FILE", "ASSAY_STORE_URL"])
def test_a_node_is_refused_the_way_to_database_and_store(name: str) -> None:
    finished = start({**NEEDED["node"], "ASSAY_ENV": "development", name: "/anything"})
    assert finished.returncode != 0
    assert "reaches neither the database nor the store" in finished.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["ASSAY_WIRE_KEY", "ASSAY_WIRE_KEY_FILE", "REDIS_PASSWORD"])
def test_a_node_is_refused_keys_that_the_control_plane_gives_it(name: str) -> None:
    finished = start({**NEEDED["node"], "ASSAY_ENV": "development", name: "/anything"})
    assert finished.returncode != 0
    assert "gets its user of the broker from the control plane" in finished.stderr.splitlines()[-1]


def test_a_nodes_address_of_the_broker_names_no_user() -> None:
    finished = start({**NEEDED["node"], "REDIS_URL": EVERY["REDIS_URL"]})
    assert finished.returncode != 0
    assert "a node gets its own from the control plane" in finished.stderr.splitlines()[-1]


def test_a_node_loads_the_engine_worker_and_has_no_database() -> None:
    program = (
        "import django; django.setup(); import workers.celery_tasks.inference\n"
        "from django.db import connection\n"
        "try:\n    connection.ensure_connection()\n"
        "except Exception as error:\n    print(type(error).__name__)"
    )
    environment = {**NEEDED["node"], "DJANGO_SETTINGS_MODULE": "assay.settings"}
    finished = start(environment, program)
    assert finished.stdout.strip() == "ImproperlyConfigured", finished.stderr


def test_only_the_controller_holds_the_audit_signing_key_and_workers_one_secret() -> None:
    assert HOLDERS["ASSAY_AUDIT_SIGNING_KEY"] == ("controller",)
    assert HOLDERS["ASSAY_SECRET_KEY"] == ("web",)
    assert "controller" not in HOLDERS["ASSAY_KEY_PEPPER"]
    assert [name for name, holders in HOLDERS.items() if "worker" in holders] == ["ASSAY_WIRE_KEY"]


def test_an_unknown_process_is_refused_with_those_that_exist() -> None:
    finished = start({**COMPLETE, "ASSAY_PROCESS": "beat"})
    assert finished.returncode != 0
    assert "web, controller, worker, egress, node, migrate" in finished.stderr.splitlines()[-1]


def test_a_password_comes_beside_the_address_of_the_database(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("p@ss/word\n")
    program = (
        "import assay.settings as s; print(s.DATABASES['default']['PASSWORD'], s.DATABASE_URL)"
    )
    environment = {**NEEDED["worker"], "DATABASE_PASSWORD_FILE": str(file)}
    finished = start(environment, program)
    assert finished.stdout.split() == ["p@ss/word", EVERY["DATABASE_URL"]]


@pytest.mark.parametrize(
    "name", ["ASSAY_SECRET_KEY", "ASSAY_KEY_PEPPER", "ASSAY_USAGE_KEY", "ASSAY_WIRE_KEY"]
)
@pytest.mark.parametrize("value", ["development-only-not-a-secret", "short"])
def test_production_refuses_a_demo_secret(name: str, value: str) -> None:
    finished = start({**COMPLETE, name: value})
    assert finished.returncode != 0
    assert name in finished.stderr.splitlines()[-1]


@pytest.mark.parametrize("value", ["proxy", "10.0.0.1/8", "10.0.0.1,nonsense"])
def test_a_trusted_proxy_that_is_no_network_is_named(value: str) -> None:
    finished = start({**COMPLETE, "ASSAY_TRUSTED_PROXIES": value})
    assert finished.returncode != 0
    assert "ASSAY_TRUSTED_PROXIES" in finished.stderr.splitlines()[-1]
    assert start({**COMPLETE, "ASSAY_TRUSTED_PROXIES": "10.0.0.1, ::1/128"}).returncode == 0


def test_production_refuses_a_short_provisioning_token() -> None:
    finished = start({**COMPLETE, "ASSAY_SCIM_TOKEN": "short"})
    assert finished.returncode != 0
    assert "ASSAY_SCIM_TOKEN" in finished.stderr.splitlines()[-1]
    assert start({**COMPLETE, "ASSAY_SCIM_TOKEN": SECRET}).returncode == 0


SIGN_ON = {
    "ASSAY_OIDC_ISSUER": "https://login.example",
    "ASSAY_OIDC_CLIENT_ID": "assay",
    "ASSAY_OIDC_CLIENT_SECRET": "given by the provider",
}


def test_single_sign_on_is_configured_whole_and_over_tls() -> None:
    assert start({**COMPLETE, **SIGN_ON}).returncode == 0
    for broken, named in (
        ({"ASSAY_OIDC_CLIENT_ID": ""}, "ASSAY_OIDC_CLIENT_ID"),
        ({"ASSAY_OIDC_CLIENT_SECRET": ""}, "ASSAY_OIDC_CLIENT_SECRET"),
        ({"ASSAY_OIDC_ISSUER": "http://login.example"}, "https"),
    ):
        finished = start({**COMPLETE, **SIGN_ON, **broken})
        assert finished.returncode != 0
        assert named in finished.stderr.splitlines()[-1]


def test_a_destination_of_audit_events_that_cannot_be_used_is_named() -> None:
    good = '[{"name": "soc", "url": "https://siem.example", "token": "hidden"}]'
    assert start({**COMPLETE, "ASSAY_SIEM_STREAMS": good}).returncode == 0
    finished = start({**COMPLETE, "ASSAY_SIEM_STREAMS": good.replace("https", "http")})
    assert finished.returncode != 0
    last = finished.stderr.splitlines()[-1]
    assert "ASSAY_SIEM_STREAMS cannot be used: destination 'soc'" in last
    assert "hidden" not in finished.stderr


def test_production_refuses_the_demo() -> None:
    finished = start({**COMPLETE, "ASSAY_DEMO": "1"})
    assert finished.returncode != 0
    assert "ASSAY_DEMO" in finished.stderr.splitlines()[-1]


@pytest.mark.parametrize("environment", [COMPLETE, {"ASSAY_ENV": "development"}])
def test_only_tests_hash_passwords_cheaply(environment: dict[str, str]) -> None:
    finished = start(
        {**environment, "DJANGO_SETTINGS_MODULE": "assay.settings"},
        "from django.contrib.auth.hashers import get_hashers\n"
        "print(*(hasher.algorithm for hasher in get_hashers()))",
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("pbkdf2_sha256 ")
    assert "md5" not in finished.stdout


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    environment = {key: value for key, value in COMPLETE.items() if key != "ASSAY_SECRET_KEY"}
    assert start({**environment, "ASSAY_SECRET_KEY_FILE": str(file)}).returncode == 0
    missing = start({**environment, "ASSAY_SECRET_KEY_FILE": str(tmp_path / "none")})
    assert "ASSAY_SECRET_KEY_FILE" in missing.stderr.splitlines()[-1]


def test_another_database_is_refused() -> None:
    finished = start({**COMPLETE, "DATABASE_URL": "sqlite:///assay.db"})
    assert finished.returncode != 0
    assert "PostgreSQL only" in finished.stderr.splitlines()[-1]


@pytest.mark.parametrize(("process", "pooled"), [("web", "True 0"), ("", "False 60")])
def test_only_the_web_process_pools_its_connections(process: str, pooled: str) -> None:
    """A pool does not survive the fork of a worker, and the controller's loops keep sessions."""
    finished = start(
        {"ASSAY_PROCESS": process},
        "from assay.settings import DATABASES as found;"
        "print('pool' in found['default']['OPTIONS'], found['default']['CONN_MAX_AGE'])",
    )
    assert finished.stdout.strip() == pooled


def redis_url(**environment: str) -> str:
    """The broker's URL as the settings make it, with `environment` in place of `REDIS_URL`."""
    kept = {name: value for name, value in COMPLETE.items() if name != "REDIS_URL"}
    finished = start(
        {**kept, **environment}, "from assay.settings import REDIS_URL; print(REDIS_URL)"
    )
    return (finished.stdout or finished.stderr).splitlines()[-1]


def test_the_brokers_password_and_authority_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("p@ss/word\n")
    authority = tmp_path / "ca.crt"
    authority.write_text("")
    named = {
        "REDIS_URL": "rediss://valkey:6379/0",
        "REDIS_USERNAME": "assay_web",
        "REDIS_PASSWORD_FILE": str(tmp_path / "password"),
        "REDIS_CA_PATH": str(authority),
    }
    assert redis_url(**named) == (
        "rediss://assay_web:p%40ss%2Fword@valkey:6379/0"
        f"?ssl_cert_reqs=required&ssl_ca_certs={authority}"
    )
    assert "REDIS_CA_PATH" in redis_url(**{**named, "REDIS_CA_PATH": str(tmp_path / "none")})


def test_production_refuses_a_broker_without_a_password_or_of_another_kind() -> None:
    assert "REDIS_PASSWORD" in redis_url(REDIS_URL="rediss://valkey:6379/0")
    assert "scheme" in redis_url(REDIS_URL="memory://")
    assert redis_url(REDIS_URL="unix:///run/valkey.sock") == "unix:///run/valkey.sock"
