"""Defaults that documentation and installations state are those of the code.

The code is asked, not read: a setting that is set to its documented default changes nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from assay.cli.doctor import POSTGRESQL_MINIMUM
from tests.architecture.interpreters import run_program
from tests.shipped import DOCKER, SYSTEMD, compose, rendered

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGE = (DOCS / "reference" / "settings.md").read_text()
SOURCE = ROOT / "platform" / "assay" / "settings.py"
# Words in place of a value, and the value that means the same; `{cores}` and paths of the program.
WORDS = {
    "ASSAY_LOG_FORMAT": "text",
    "ASSAY_DATA_DIR": "{folder}/.assay/data",
    "ASSAY_STORE_URL": "",
    "ASSAY_ENGINE_REQUESTS": "128",
    "ASSAY_REQUEST_LOG_KEY": "development-only-not-a-secret",
    "ASSAY_STORE_CACHE_DIR": "",
    "ASSAY_PORTAL_URL": "http://localhost:8000",
    "ASSAY_HSTS_SECONDS": "31536000",
    "ASSAY_STATIC_ROOT": "{folder}/staticfiles",
    "ASSAY_STATIC_COLLECTED": "0",
    "ASSAY_ALLOWED_HOSTS": "localhost,127.0.0.1,[::1]",
    "ASSAY_AUDIT_PUBLISH_DIR": "{folder}/.assay/data/transparency",
    "ASSAY_AUDIT_PUBLISH_INTERVAL_S": "1",
    "ASSAY_UPLOAD_DIR": "{folder}/.assay/uploads",
    "ASSAY_ENGINE_THREADS": "{fewer}",
    "ASSAY_ENGINE_SERVER_MEMORY_BYTES": "17179869184",
    "ASSAY_ENGINE_SERVER_UNCONFINED": "false",
    "ASSAY_COMPUTE_THREADS": "{cores}",
    "ASSAY_JOB_MEMORY_PERCENT": "80",
}
# Looks for boto3's, the system's or Assay's own way while it is empty.
EMPTY = ("none", "AWS", "boto3's", "where boto3 looks", "the system's")
# Read by other programs, or required: there is no value to compare.
ELSEWHERE = {
    "ASSAY_PROCESS",
    "ASSAY_SERVER",
    "ASSAY_TOKEN",
    "ASSAY_ESPEAK_NG",
    "ASSAY_WORKER_KIND",
    "ASSAY_WORKER_CONCURRENCY",
}
PROGRAM = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, "platform")
SECRETS = {"SECRET_KEY"}
def read(given):
    for name in [name for name in os.environ if name.startswith(("ASSAY_", "REDIS_", "MLFLOW_"))]:
        del os.environ[name]
    os.environ.update(given)
    space = {"__file__": SOURCE, "__name__": "settings"}
    exec(CODE, space)
    return {k: repr(v) for k, v in space.items() if k.isupper() and k not in SECRETS}
SOURCE = "SOURCE_PATH"
CODE = compile(Path(SOURCE).read_text(), SOURCE, "exec")
cores = os.cpu_count() or 1
words = {"folder": os.getcwd(), "cores": cores, "fewer": max(1, cores - 1)}
plain, found = read({}), {}
for name, value in json.loads(VALUES).items():
    value = value.format(**words)
    try:
        changed = read({name: value})
    except Exception as error:
        found[name] = f"{value!r} is refused: {error}"
        continue
    if wrong := {k: (plain.get(k), v) for k, v in changed.items() if plain.get(k) != v}:
        found[name] = f"is documented as {value!r}, and that changes {wrong}"
print(json.dumps([found, plain]))
"""


def documented() -> dict[str, str]:
    """The default of each setting in the reference, as its cell has it."""
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \| (.*?) \|", PAGE, re.MULTILINE)
    assert len(rows) > 150
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def values() -> Iterator[tuple[str, str]]:
    """Each setting and the value that its documented default means."""
    for name, cell in documented().items():
        if name in ELSEWHERE or cell.startswith("required"):
            continue
        if name in WORDS:
            yield name, WORDS[name]
        elif cell in EMPTY:
            yield name, ""
        elif literal := re.fullmatch(r"`([^`]*)`", cell):
            yield name, literal[1]
        elif number := re.fullmatch(r"(\d+)(?: \(\d+ [GM]iB\))?", cell):
            yield name, number[1]
        else:
            pytest.fail(f"{name}: {cell!r} is no value; name what it means in WORDS.")


@cache
def differing(given: str) -> tuple[dict[str, str], dict[str, str]]:
    program = PROGRAM.replace("SOURCE_PATH", str(SOURCE)).replace("VALUES", repr(given))
    ran = run_program(program, {"ASSAY_ENV": "development"})
    assert ran.returncode == 0, ran.stderr
    found, plain = json.loads(ran.stdout)
    return found, plain


def same(given: dict[str, str]) -> None:
    found, _ = differing(json.dumps(given))
    assert found == {}


def test_a_setting_at_its_documented_default_changes_nothing() -> None:
    same(dict(values()))


def test_words_in_place_of_a_default_are_those_of_the_reference() -> None:
    known = documented()
    assert not WORDS.keys() - known.keys()
    assert known["ASSAY_HSTS_SECONDS"].startswith(WORDS["ASSAY_HSTS_SECONDS"])
    assert known["ASSAY_ENGINE_SERVER_MEMORY_BYTES"] == "16 GiB"
    assert known["ASSAY_JOB_MEMORY_PERCENT"].startswith(WORDS["ASSAY_JOB_MEMORY_PERCENT"])


def test_a_value_that_compose_takes_when_none_is_set_is_the_codes() -> None:
    """Values where the shell sets nothing. Its own addresses differ on purpose."""
    own = {"ASSAY_AUDIT_LOG_NAME", "ASSAY_ALLOWED_HOSTS", "ASSAY_PORTAL_URL",
           "ASSAY_CSRF_TRUSTED_ORIGINS", "OTEL_EXPORTER_OTLP_ENDPOINT"}  # fmt: skip
    given: dict[str, str] = {}
    for file in ("compose.yaml", "compose.bucket.yaml", "compose.node.yaml"):
        for service in compose(file)["services"].values():
            for name, value in service.get("environment", {}).items():
                taken = re.fullmatch(r"\$\{(\w+):-([^}]*)\}", value)
                if taken and name not in own:
                    assert taken[1] == name
                    given[name] = taken[2]
    assert len(given) > 8
    same(given)


def test_values_that_the_chart_comes_with_are_the_codes() -> None:
    """As far as they are settings that the code has a default for."""
    names = {"ASSAY_AUDIT_LOG_NAME", "ASSAY_AUDIT_PUBLISH_URL", "ASSAY_AUDIT_S3_ENDPOINT_URL",
             "ASSAY_AUDIT_S3_REGION", "ASSAY_AUDIT_WITNESSES", "ASSAY_OIDC_ISSUER",
             "ASSAY_OIDC_CLIENT_ID", "ASSAY_TRUSTED_PROXIES"}  # fmt: skip
    given: dict[str, str] = {}
    for each in rendered():
        if each["kind"] in {"Deployment", "Job"}:
            for one in each["spec"]["template"]["spec"]["containers"][0].get("env", ()):
                if one["name"] in names:
                    given[one["name"]] = one["value"]
    assert given.keys() == names
    same(given)


def concurrency() -> dict[str, str]:
    """Of each kind of worker in the unit, the image and the chart."""
    entrypoint = (DOCKER / "entrypoint.sh").read_text()
    found = {}
    for kind, module in (("compute", "jobs"), ("engine", "inference")):
        (unit,) = re.findall(
            r"ASSAY_WORKER_CONCURRENCY=(\d+)", (SYSTEMD / f"assay-{kind}.service").read_text()
        )
        image = set(re.findall(
            rf"celery_tasks.{module}[^\"]*\"\$\{{ASSAY_WORKER_CONCURRENCY:-(\d+)\}}\"", entrypoint
        ))  # fmt: skip
        (chart,) = (
            one["value"]
            for each in rendered()
            if each["metadata"]["name"] == f"assay-{kind}-cpu" and each["kind"] == "Deployment"
            for one in each["spec"]["template"]["spec"]["containers"][0]["env"]
            if one["name"] == "ASSAY_WORKER_CONCURRENCY"
        )
        assert image == {unit} == {chart}, kind
        found[kind] = unit
    return found


def test_every_installation_starts_workers_alike_and_as_documented() -> None:
    each = concurrency()
    said = documented()["ASSAY_WORKER_CONCURRENCY"]
    assert said == f"{each['compute']} for compute, {each['engine']} for engine"
    install = " ".join((DOCS / "how-to" / "install.md").read_text().split())
    threads = f"(jobs at once, {each['compute']}; threads that receive requests, {each['engine']})"
    assert f"`ASSAY_WORKER_CONCURRENCY` {threads}" in install
    web = re.findall(r"WEB_CONCURRENCY:-(\d+)", (DOCKER / "entrypoint.sh").read_text())
    assert f"`WEB_CONCURRENCY` (web processes, {web[0]})" in install
    assert f"--workers {web[0]}\n" in (SYSTEMD / "assay-web.service").read_text()


UNITS = {"MiB": 1024**2, "GiB": 1024**3}
# A default in prose: `NAME` (value), value (`NAME`), | value | `NAME` |, NAME=value # the default.
STATED = (
    r"`(?P<name>ASSAY_[A-Z0-9_]+)` \((?P<value>\d[\d,]*)(?: (?P<unit>MiB|GiB))?(?: s)?\)",
    r"(?P<value>\d[\d,]*)(?: (?P<unit>MiB|GiB))?(?: \w+){0,5} \(`(?P<name>ASSAY_[A-Z0-9_]+)`\)",
    r"\| (?P<value>\d[\d,]*)(?: (?P<unit>MiB|GiB))? \| `(?P<name>ASSAY_[A-Z0-9_]+)` \|",
    r"(?P<name>ASSAY_[A-Z0-9_]+)=(?P<value>\d+)(?P<unit>) +# the default",
)


def stated() -> Iterator[tuple[str, str, str]]:
    """The file, the setting and the value of each default that prose states."""
    for file in sorted(DOCS.rglob("*.md")):
        if file.parent.name == "adr" or file.name in {"settings.md", "performance.md"}:
            continue
        text = " ".join(file.read_text().split())
        for pattern in STATED:
            for match in re.finditer(pattern, text):
                number = int(match["value"].replace(",", "")) * UNITS.get(match["unit"] or "", 1)
                yield file.relative_to(DOCS).as_posix(), match["name"], str(number)


def test_defaults_in_prose_are_the_codes() -> None:
    found = list(stated())
    assert len(found) > 10, found
    for file, name, value in found:
        wrong, _ = differing(json.dumps({name: value}))
        assert wrong == {}, file


def test_a_wrong_default_is_found() -> None:
    """The check itself: a value that is not the default changes something."""
    for name, value in (("ASSAY_JOB_LEASE_S", "31"), ("ASSAY_SLURM_GPUS", "1"),
                        ("ASSAY_OIDC_CREATE_PEOPLE", "0"), ("ASSAY_WEB_THREADS", "9")):  # fmt: skip
        found: dict[str, Any] = differing(json.dumps({name: value}))[0]
        assert found.keys() == {name}


def test_every_installation_names_the_oldest_postgresql() -> None:
    """`assay doctor` and the migration refuse anything older."""
    needed = f"{POSTGRESQL_MINIMUM} or newer"
    for page in ("install", "install-systemd", "install-kubernetes", "isolate-processes"):
        text = " ".join((DOCS / "how-to" / f"{page}.md").read_text().split())
        assert f"PostgreSQL {needed}" in text, page
    assert f"PostgreSQL, {needed}" in PAGE
    migration = (ROOT / "governance" / "migrations" / "sql" / "application_role.sql").read_text()
    assert f"::int < {POSTGRESQL_MINIMUM}0000" in migration
