"""Processes of an audit log, to be broken: PostgreSQL that can be killed, and processes that write
and seal. They are forked from one that has Django set up, so that a new one costs nothing.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import psycopg

from assay.local.services import Postgres
from tests.live.celery_worker import ROOT, kill
from tests.waiting import wait_until

ACTION = "fault:write"


class FragilePostgres(Postgres):
    """PostgreSQL as a crash leaves it and finds it again.

    A commit waits until the operating system has it, not the disk: what is killed here is
    processes, and what they gave to the operating system outlives them.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")

    @property
    def _postmaster(self) -> psutil.Process:
        return psutil.Process(self._server.get_pid())

    def kill(self) -> None:
        """All of its processes at once, as when the machine loses them."""
        postmaster = self._postmaster
        postmaster.suspend()  # It forks no more while its children are counted.
        every = [*postmaster.children(recursive=True), postmaster]
        for process in every:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        wait_until(lambda: not any(_runs(process) for process in every))
        # A zombie's number is still taken, which the next start would take for a running server.
        for name in (".s.PGSQL.5432.lock", "postmaster.pid"):
            (self._server.pgdata / name).unlink()

    def kill_a_backend(self, draw: random.Random) -> None:
        """One process that serves a client, or works for them all; PostgreSQL then restarts itself,
        for it trusts the shared memory no more."""
        children = self._postmaster.children()
        with suppress(psutil.NoSuchProcess):
            draw.choice(children).kill()

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def answers(self) -> bool:
        try:
            with psycopg.connect(self.url("postgres"), connect_timeout=2) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


class Nursery:
    """A process with Django set up, of which others are forked."""

    def __init__(self, log: Path, environment: dict[str, str]) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.live.audit_processes"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                start_new_session=True,
            )

    def start(self, role: str, *words: object) -> int:
        """The process id of a new process that plays `role`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, (role, *words))) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        kill(self._process)  # type: ignore[arg-type] (it only sends signals)


@contextmanager
def nursery(log: Path, environment: dict[str, str]) -> Iterator[Nursery]:
    made = Nursery(log, environment)
    try:
        yield made
    finally:
        made.close()


def _runs(process: psutil.Process) -> bool:
    """True while it is alive: a zombie, which waits for its parent to notice, is not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid)


def end(pid: int) -> None:
    """Ask a process to finish what it does, and wait until it has."""
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: gone(pid))


def _serve() -> None:
    import django
    from django.utils import timezone

    django.setup()
    if slow := os.environ.get("TEST_CLOCK_BACK_S"):
        # All processes that this one forks have the wrong clock.
        timezone.now = lambda: datetime.now(UTC) - timedelta(seconds=int(slow))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        role, *words = line.split()
        pid = os.fork()
        if pid:
            sys.stdout.write(f"{pid}\n")
            sys.stdout.flush()
            continue
        try:
            _play(role, words)
        finally:
            os._exit(0)


def _play(role: str, words: list[str]) -> None:
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threading.Thread(target=_not_orphaned, args=(os.getppid(), stop), daemon=True).start()
    ROLES[role](stop, *words)


def _not_orphaned(parent: int, stop: threading.Event) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    stop.set()


def _seal(stop: threading.Event, largest_file: str = "") -> None:
    """The controller's sealer and publisher; a file may not grow over `largest_file` bytes, as on a
    disk that is full."""
    import resource

    from django.conf import settings

    from governance.audit import sealer
    from governance.audit.outside import publishing

    # Not to sleep through most of the faults.
    sealer.PAUSE_AFTER_ERROR_S = 0.05
    sealer.HUNG_AFTER_S = 2
    publishing.PAUSE_AFTER_FAILURE_S = 0.05
    settings.AUDIT_PUBLISH_INTERVAL_S = 0.01
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest_file), resource.RLIM_INFINITY))
    publisher = threading.Thread(target=publishing.run, args=(stop,), daemon=True)
    publisher.start()
    sealer.run(stop, 0.01)
    publisher.join()


class _Regret(Exception):
    """A change that thinks better of itself, together with its events."""


def _write(stop: threading.Event, name: str, path: str) -> None:
    """Record events in transactions, and note in `path` what became of each as a client sees it:
    kept, undone, or unknown because the connection broke before the answer came.
    """
    from django.db import Error, connection, transaction

    from governance.audit.services import AuditEntry, Subject, audit_record, audit_record_many
    from governance.principals import RequestContext, service_principal

    draw, actor, number = random.Random(name), service_principal("writer"), 0
    note = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def deliver(ids: list[str]) -> None:
        audit_record_many(
            AuditEntry(
                actor,
                ACTION,
                Subject("write", name, name),
                delivery=name,
                context=RequestContext(request_id=name),
            )
            for name in ids
        )

    def attempt(ids: list[str], delivered: bool, regretted: bool) -> str:
        try:
            with transaction.atomic():
                if delivered:
                    deliver(ids)
                else:
                    for name in ids:
                        audit_record(
                            actor=actor, action=ACTION, subject=Subject("write", name, name)
                        )
                # Others commit in between, so ids become visible out of order.
                time.sleep(draw.random() * 0.01)
                if regretted:
                    raise _Regret
        except _Regret:
            return "undone"
        except Error:
            connection.close()
            time.sleep(0.02)
            return "unknown"
        return "kept"

    while not stop.is_set():
        ids = [f"{name}-{number + i}" for i in range(draw.choice((1, 1, 2, 5)))]
        number += len(ids)
        # An entry of the usage stream is delivered until it is acknowledged.
        delivered = draw.random() < 0.2
        regretted = not delivered and draw.random() < 0.05
        became = attempt(ids, delivered, regretted)
        while delivered and became == "unknown":
            became = attempt(ids, delivered, regretted)
        os.write(note, f"{became} {' '.join(ids)}\n".encode())


def _migrate(stop: threading.Event) -> None:
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def _export(stop: threading.Event, path: str) -> None:
    from governance.audit.exports.log import export_lines

    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in export_lines())


def _verify(stop: threading.Event, path: str) -> None:
    """As "verify now" does; what it says goes into `path`."""
    from governance.audit.selectors import verify_live

    Path(path).write_text(repr(verify_live()), encoding="utf-8")


ROLES = {
    "seal": _seal,
    "write": _write,
    "migrate": _migrate,
    "export": _export,
    "verify": _verify,
}

if __name__ == "__main__":
    _serve()
