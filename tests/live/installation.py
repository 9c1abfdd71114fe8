"""A whole installation with the environments that it ships, as an operator makes it: a database of
an ordinary owner that a superuser has hardened, the secrets of `docker/make-secrets.sh`, and the
documented commands.
"""

from __future__ import annotations

import copy
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from assay.database_roles.hardening import STATEMENTS
from assay.database_roles.privileges import OWNER
from assay.local.services import Postgres
from tests.live.celery_worker import kill
from tests.live.preloaded import Process, start
from tests.services import broker_url
from tests.shipped import DOCKER, ROOT, Machine, helm_secrets
from tests.waiting import wait_until

COMMANDS = {"assay": ("-m", "assay.cli"), "manage": ("manage.py",), "python": ("-c",)}
MIGRATE = (("migrate", "--no-input"), ("apply_database_roles",), ("bootstrap",))


class Installation(Machine):
    """One installation. Those of one test may share a second place.

    Args:
        server: A PostgreSQL of its own: roles are the cluster's.
        name: Of its folder and its database.
        like: The installation whose database is copied; an empty one is made by default.
        secrets_of: The installation whose secrets it has; new ones are made by default.
        outside: Its second place; `outside` below `root` by default.
    """

    def __init__(
        self,
        root: Path,
        server: Postgres,
        name: str,
        *,
        layout: str = "systemd",
        like: Installation | None = None,
        secrets_of: Installation | None = None,
        outside: Path | None = None,
    ) -> None:
        folder = root / name
        super().__init__(
            folder=folder,
            data=folder / "data",
            outside=outside or root / "outside",
            static=folder / "static",
            database=lambda user: server.url(name, user),
            broker=broker_url,
            layout=layout,
        )
        for made in (folder, self.data, self.outside):
            made.mkdir(parents=True, exist_ok=True)
        if like is not None:
            with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
                connection.execute(
                    f'CREATE DATABASE "{name}" OWNER {OWNER} TEMPLATE "{like.folder.name}"'
                )
        server.create_database(name, owner=OWNER, creates_roles=True)
        with psycopg.connect(server.url(name), autocommit=True) as superuser:
            superuser.execute(STATEMENTS)
        if secrets_of is not None:
            self.secrets.symlink_to(secrets_of.secrets)
        else:
            program = DOCKER / "make-secrets.sh"
            subprocess.run([program, self.secrets], check=True, capture_output=True)
            helm_secrets(self.secrets)

    def shipped_as(self, layout: str) -> Installation:
        """Return the same installation, with the environments of another layout."""
        other = copy.copy(self)
        object.__setattr__(other, "layout", layout)
        return other

    def run(
        self, kind: str, *command: str, process: str = "backup", **settings: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `assay COMMAND`, `manage.py COMMAND` or Python's code as a process."""
        with self.started(kind, *command, process=process, **settings) as running:
            status = running.wait(300)
        return subprocess.CompletedProcess(command, status, self.log.read_text(), "")

    def done(self, kind: str, *command: str, process: str = "backup", **settings: str) -> str:
        """Run a command that succeeds, and return its output."""
        finished = self.run(kind, *command, process=process, **settings)
        assert finished.returncode == 0, finished.stdout
        return " ".join(finished.stdout.split())

    def refused(self, kind: str, *command: str, process: str = "backup", **settings: str) -> str:
        """Run a command that is refused, and return its output."""
        finished = self.run(kind, *command, process=process, **settings)
        assert finished.returncode == 1, finished.stdout
        return " ".join(finished.stdout.split())

    @property
    def log(self) -> Path:
        return self.folder / "command.log"

    @contextmanager
    def started(
        self, kind: str, *command: str, process: str, log: str = "command.log", **settings: str
    ) -> Iterator[Process]:
        """A command as a process, its output in a file; killed with the block."""
        with (self.folder / log).open("wb") as output:
            running = start(
                (*COMMANDS[kind], *command),
                cwd=ROOT,
                env=self.environment(process, **settings),
                output=output,
            )
        try:
            yield running
        finally:
            kill(running)

    @contextmanager
    def controller(self, **settings: str) -> Iterator[Process]:
        """The controller, once it runs."""
        log = self.folder / "controller.log"
        with self.connect() as session:
            # An earlier one was killed, and gave up no lease.
            session.execute("UPDATE workers_leadership SET until = now()")
        with self.started(
            "manage", "run_controller", process="controller", log=log.name, **settings
        ) as running:
            wait_until(
                lambda: b"The controller runs" in log.read_bytes() or running.poll() is not None
            )
            assert running.poll() is None, log.read_text()
            yield running

    def migrate(self) -> None:
        """As the service `migrate` does."""
        for step in MIGRATE:
            self.done("manage", *step, process="migrate")

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """Connect as the tables' owner, who reads every row."""
        return psycopg.connect(self.database(OWNER), options="-c assay.departments=*")

    def value(self, query: str) -> object:
        """Return the first column of the first row."""
        with self.connect() as connection:
            row = connection.execute(query).fetchone()  # type: ignore[call-overload]
        return row[0] if row else None

    def tables(self) -> list[str]:
        with self.connect() as connection:
            found = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
            )
            return [str(name) for (name,) in found]

    def rows(self) -> dict[str, int]:
        """Count the rows of every table but those of sessions."""
        with self.connect() as connection:
            return {
                name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchall()[0][0]  # type: ignore[misc, arg-type]  # noqa: S608
                for name in self.tables()
                if name != "django_session"
            }

    def published(self) -> int:
        """Return how many events the second place has."""
        note = self.outside / "checkpoint"
        return int(note.read_text().splitlines()[1]) if note.exists() else 0

    def publish(self, **settings: str) -> int:
        """Let a controller seal and publish what waits; return how many events are published."""
        waiting = "SELECT count(*) FROM governance_auditevent"
        with self.controller(**settings):
            wait_until(lambda: self.published() == self.value(waiting))
        return self.published()


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """Not below pytest's folder, which PostgreSQL's user cannot reach where root runs the tests."""
    with tempfile.TemporaryDirectory(prefix="assay-test-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        started = Postgres(folder / "postgres")
        started.configure_for_tests()
        yield started
        started.stop()
