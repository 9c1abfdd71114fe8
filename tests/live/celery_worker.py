"""Real Celery workers beside the tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from django.conf import settings as tests_settings
from django.db import connection

from assay.database_roles.privileges import OWNER, ROLES
from tests.live.preloaded import Process, start
from tests.services import broker_url
from tests.shipped import ROOT, Machine, write_secrets
from tests.waiting import wait_until

ENGINE_TASKS = "workers.celery_tasks.inference"
ENGINE_WORKER = ("-I", ENGINE_TASKS, "-Q", "engine.none", "-P", "threads", "-c", "8")
# Nothing that Celery tells all workers of by itself, as in production.
QUIET = ("--without-mingle", "--without-gossip", "--without-heartbeat")


def of_tests(folder: Path) -> Machine:
    """This machine, with the database, broker, data and secrets of the tests."""
    write_secrets(folder / "secrets")
    return Machine(
        folder=folder,
        data=Path(tests_settings.DATA_DIR),
        outside=Path(tests_settings.AUDIT_PUBLISH_DIR),
        # Not collected: `web_process.collected` does that.
        static=folder / "static",
        database=database_url,
        broker=broker_url,
    )


def database_url(user: str = OWNER) -> str:
    """The tests' database, whose tables belong to the tests' own user."""
    values = connection.settings_dict
    user = quote(values["USER"]) if user == OWNER else user
    return f"postgresql://{user}@/{quote(values['NAME'])}?host={quote(values['HOST'], safe='/')}"


def process_url(process: str) -> str:
    """The tests' database as the role of a process, as in production."""
    return database_url(ROLES[process].name)


def end_database_connections() -> None:
    """End all other connections to the tests' database, as a restart of its server does."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@contextmanager
def worker(log: Path, *options: str, **settings: str) -> Iterator[Process]:
    """A Celery worker."""
    command = ("-m", "celery", "--quiet", "-A", "workers.app", "worker", *QUIET)
    arguments = (*command, "-n", f"{log.stem}@%h", *options)
    with started("worker", log, b" ready.", *arguments, **settings) as process:
        yield process


@contextmanager
def controller(log: Path, **settings: str) -> Iterator[Process]:
    """The control plane's loops."""
    arguments = ("manage.py", "run_controller")
    with started("controller", log, b"The controller runs", *arguments, **settings) as process:
        yield process


@contextmanager
def started(
    process: str, log: Path, ready: bytes, *arguments: str, **settings: str
) -> Iterator[Process]:
    """A Python process in its own group, on the tests' database and broker, once it is `ready`.

    `process` is the kind that it plays, whose database role it has; `settings` are set in its
    environment.
    """
    given = of_tests(log.parent).environment(_kind(process, arguments), **settings)
    with log.open("ab") as output:
        running = start(arguments, cwd=ROOT, env=given, output=output)
    try:
        wait_until(lambda: ready in log.read_bytes() or running.poll() is not None)
        assert running.poll() is None, log.read_text()
        yield running
    finally:
        kill(running)


@contextmanager
def node_worker(
    log: Path, url: str, key_file: Path, *options: str, **settings: str
) -> Iterator[Process]:
    """A worker on a machine of its own: nothing of the tests' environment but the way to
    the broker and to the web process at `url`, an empty data folder, and `settings`.
    """
    command = ("-m", "celery", "--quiet", "-A", "workers.app", "worker", *QUIET)
    arguments = (*command, "-n", f"{log.stem}@%h", *options)
    # The control plane gives it a user of the broker; a controller must run.
    given = of_tests(key_file.parent).environment("node", ASSAY_NODE_URL=url)
    given |= {"ASSAY_NODE_KEY_FILE": str(key_file), **settings}
    with log.open("ab") as output:
        running = start(arguments, cwd=key_file.parent, env=given, output=output)
    try:
        wait_until(lambda: b" ready." in log.read_bytes() or running.poll() is not None)
        assert running.poll() is None, log.read_text()
        yield running
    finally:
        kill(running)


def _kind(process: str, arguments: tuple[str, ...]) -> str:
    """The unit of a process; there are two for workers."""
    if process != "worker":
        return process
    return "engine" if any(ENGINE_TASKS in one for one in arguments) else "compute"


def kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def descendants(pid: int) -> Iterator[int]:
    """The processes that a process has started, and those that they have."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            text = children.read_text()
        except OSError:
            continue  # The process has ended.
        for child in map(int, text.split()):
            yield child
            yield from descendants(child)
