"""A production's database: its owner is an ordinary role, which row security binds as well."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from assay.local.services import Postgres
from tests.live.celery_worker import of_tests

ROOT = Path(__file__).resolve().parents[2]
# Create two departments as the platform; then count the rows that it and one member see.
SCRIPT = """
import django
django.setup()
from governance import rowsecurity
from governance.people.models import Department, Person, RoleAssignment
from governance.people.selectors import principal_for_person
from governance.policy.services import policy_bootstrap
from registry.versions.models import Model
policy_bootstrap()
mia = Person.objects.create(email="mia@example.org", name="Mia")
for slug in ("clinical", "finance"):
    department = Department.objects.create(slug=slug, name=slug)
    Model.objects.create(name=slug, department=department, task="embeddings", created_by=mia)
RoleAssignment.objects.create(person=mia, role="lead", department=department)
print(sorted(Model.objects.values_list("name", flat=True)))
with rowsecurity.scope(principal_for_person(mia)):
    print(sorted(Model.objects.values_list("name", flat=True)))
print(sorted(Model.objects.values_list("name", flat=True)))
"""

pytestmark = pytest.mark.live


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """A cluster of its own: roles are the cluster's.

    Not below pytest's folder, which PostgreSQL's user cannot reach where root runs the tests.
    """
    with tempfile.TemporaryDirectory(prefix="assay-test-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        server = Postgres(folder / "postgres")
        yield server
        server.stop()


def owner(postgres: Postgres, *statements: str) -> str:
    """A database of its own for the ordinary role `plain`; returns its URL."""
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        for statement in (*statements, "CREATE DATABASE plain OWNER plain"):
            connection.execute(statement)
    return postgres.url("plain").replace("postgres@", "plain@")


def python(folder: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the environment of the unit that migrates, on this database."""
    environment = of_tests(folder).environment(
        "migrate", DATABASE_URL=url, DJANGO_SETTINGS_MODULE="assay.settings"
    )
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE ROLE plain LOGIN CREATEROLE",),
        pytest.param(
            (
                "CREATE ROLE plain LOGIN",
                "CREATE ROLE assay_app NOLOGIN NOINHERIT",
                "GRANT assay_app TO plain",
            ),
            marks=pytest.mark.long,
        ),
    ],
    ids=["may make roles", "was granted the role"],
)
def test_an_owner_that_is_no_superuser_is_bound_and_the_platform_works(
    postgres: Postgres, statements: tuple[str, ...], tmp_path: Path
) -> None:
    url = owner(postgres, *statements)

    migrated = python(tmp_path, url, "manage.py", "migrate", "--verbosity", "0")
    seen = python(tmp_path, url, "-c", SCRIPT)
    with psycopg.connect(url) as connection:
        told_nothing = connection.execute("SELECT count(*) FROM registry_model").fetchone()

    assert migrated.returncode == 0, migrated.stderr[-2000:]
    both = "['clinical', 'finance']"
    assert seen.stdout.splitlines() == [both, "['finance']", both], seen.stderr[-2000:]
    assert told_nothing == (0,)


def test_an_owner_that_may_not_have_the_role_is_told_what_mends_it(
    postgres: Postgres, tmp_path: Path
) -> None:
    migrated = python(tmp_path, owner(postgres, "CREATE ROLE plain LOGIN"), "manage.py", "migrate")

    assert migrated.returncode != 0
    assert "GRANT assay_app TO plain" in migrated.stderr
