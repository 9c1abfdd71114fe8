"""A complete installation on one machine: stores, web server, controller, both kinds of worker."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO

import httpx
import psycopg

from assay.database_roles.hardening import STATEMENTS
from assay.database_roles.privileges import MLFLOW, OWNER, ROLES
from assay.local.programs import Part, Program, Watch
from assay.local.services import MLflow, Postgres, Valkey, free_port
from assay.processes import HOLDERS
from governance.credentials.sealing import public_key_of

# Secrets that are generated once, with the names of their files.
MADE = {
    "ASSAY_SECRET_KEY": "secret-key",
    "ASSAY_KEY_PEPPER": "key-pepper",
    "ASSAY_USAGE_KEY": "usage-key",
    "ASSAY_WIRE_KEY": "wire-key",
    "ASSAY_REQUEST_LOG_KEY": "request-log-key",
}
# Small trainings gain little from a second thread, so two of them share the cores. The third place
# is for jobs such as the check of a delivery, so that they do not wait for trainings.
JOBS_AT_A_TIME = 3
Say = Callable[[str], None]
# Django finds its settings in the environment, and `manage.py` only in a checkout.
_DJANGO = (sys.executable, "-m", "django")
# In one process, because Django takes seconds to start.
_PREPARE = """
import django
from django.core.management import call_command
django.setup()
call_command("migrate", verbosity=0)
call_command("apply_database_roles")
call_command("bootstrap")
call_command("collectstatic", interactive=False, clear=True, verbosity=0)
"""
_CELERY = (sys.executable, "-m", "celery", "-A", "workers.app", "worker")
_QUIET = ("--without-mingle", "--without-gossip", "--without-heartbeat")


class AlreadyRuns(RuntimeError):
    """Another process is running an installation from this folder."""


class Stack:
    """All stores and processes, started in order and stopped in reverse.

    Args:
        folder: folder for data, logs and secrets, which a later start continues to use.
        demo: the portal offers one-click personas on loopback.
        port: the web server's port; None takes a free one.
        settings: further settings of every process.
        production: production's rules apply; the portal is then behind a proxy with TLS.
    """

    def __init__(
        self,
        folder: Path,
        *,
        demo: bool = False,
        port: int | None = None,
        settings: Mapping[str, str] = MappingProxyType({}),
        production: bool = False,
    ) -> None:
        self.folder = folder
        self._settings = settings
        # Next to `folder`: if started as root, PostgreSQL runs as a separate user, who must be able
        # to traverse all folders above its data.
        self.postgres = folder.with_name(f"{folder.name}-postgres")
        self.logs = folder / "logs"
        self.port = port or free_port()
        self._demo = demo
        self._production = production
        # Both in the order of their start.
        self._stores: dict[str, Part] = {}
        self._programs: dict[str, Program] = {}
        self._watches: dict[str, Watch] = {}
        self._lock: IO[str] | None = None
        # Settings of every process; `environment_of` adds those of one kind of process.
        self.environment: dict[str, str] = {}
        # Settings of each process: database role, broker user, secrets. Workers have common and
        # individual ones.
        self._own: dict[str, dict[str, str]] = {}
        self.mlflow: MLflow | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, say: Say) -> None:
        """Start everything; returns when the portal answers (MLflow may still be starting).

        Raises:
            AlreadyRuns: another process has started it from the same folder.
            RuntimeError: a part did not start; the message names it and its log.
        """
        self.start_stores()
        database = self._postgres.url("mlflow", MLFLOW)
        self.mlflow = MLflow(database, self.folder / "mlflow", self.logs / "mlflow.log")
        self._stores["mlflow"] = self.mlflow
        self.environment |= self.mlflow.environment
        say("PostgreSQL and Valkey run; MLflow is starting.")
        self._set_audit_keys()
        self._run("-c", _PREPARE)
        # Before web, which verifies with the public key that the controller creates.
        self._spawn("controller", "controller", *_DJANGO, "run_controller")
        self._web()
        self._workers()
        self.wait_for_web()
        self._publish()

    def start_stores(self) -> None:
        """Start PostgreSQL and Valkey, and set up the environment of each process.

        Raises:
            AlreadyRuns: another process has started them from the same folder.
        """
        self.make_folders()
        self._lock = self._locked()
        if self._lock is None:
            raise AlreadyRuns(f"Assay already runs from {self.folder}.")
        postgres = self._postgres = Postgres(self.postgres)
        self._stores["postgresql"] = postgres
        postgres.create_database("assay", owner=OWNER, creates_roles=True)
        postgres.create_database("mlflow", owner=MLFLOW)
        # As superuser; elsewhere an administrator must run these statements.
        with psycopg.connect(postgres.url("assay")) as superuser:
            superuser.execute(STATEMENTS)
        valkey = Valkey(self.folder / "valkey")
        self._stores["valkey"] = valkey
        self.environment = {
            **os.environ,
            **self._settings,
            "ASSAY_ENV": "production" if self._production else "development",
            "ASSAY_DEMO": "1" if self._demo else "0",
            "ASSAY_DATA_DIR": str(self.folder / "data"),
            # Mail and one-time links use the port of this stack, or its proxy.
            "ASSAY_PORTAL_URL": (self._production and os.environ.get("ASSAY_PORTAL_URL"))
            or self.url,
            "ASSAY_STATIC_ROOT": str(self.folder / "static"),
            "ASSAY_STATIC_COLLECTED": "1",
            "DJANGO_SETTINGS_MODULE": "assay.settings",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            # Waiting threads of torch yield the cores to other processes.
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        self._own = {
            "migrate": {
                "DATABASE_URL": postgres.url("assay", OWNER),
                "REDIS_URL": valkey.url_of("web"),
            },
            **{
                name: {"DATABASE_URL": postgres.url("assay", role.name)}
                for name, role in ROLES.items()
            },
            # Only workers that serve have the wire key.
            "compute-worker": {
                "REDIS_URL": valkey.url_of("compute"),
                "ASSAY_WIRE_KEY": "",
                "ASSAY_COMPUTE_THREADS": str(max(1, (os.cpu_count() or 1) // 2)),
            },
            "engine-worker": {"REDIS_URL": valkey.url_of("engine")},
            # In the database and on the broker it is an engine worker.
            "egress": {
                "DATABASE_URL": postgres.url("assay", ROLES["worker"].name),
                "REDIS_URL": valkey.url_of("engine"),
            },
        }
        for process in ("web", "controller"):
            self._own[process]["REDIS_URL"] = valkey.url_of(process)
        for secret, holders in HOLDERS.items():
            if secret in MADE:
                # Nodes never run on the machine of the control plane, so they have no entry here.
                for process in self._own.keys() & set(holders):
                    self._own[process][secret] = self._secret(MADE[secret])
        # 64 hexadecimal digits.
        key = hashlib.sha256(self._secret("egress-key").encode()).digest()
        self._own["egress"]["ASSAY_EGRESS_KEY"] = key.hex()
        self._own["web"]["ASSAY_EGRESS_PUBLIC_KEY"] = public_key_of(key).hex()

    def _set_audit_keys(self) -> None:
        """Set the keys of the audit log in production. In development, the controller creates them
        in the data folder."""
        if not self._production:
            return
        # 64 hexadecimal digits.
        key = hashlib.sha256(self._secret("audit-signing-key").encode()).hexdigest()
        self._own["controller"]["ASSAY_AUDIT_SIGNING_KEY"] = key
        public = self._run("-m", "django", "audit_public_key", process="controller")
        for process in ("web", "migrate"):
            self._own[process]["ASSAY_AUDIT_PUBLIC_KEY"] = public.strip()

    @contextlib.contextmanager
    def commands(self, say: Say) -> Iterator[Mapping[str, str]]:
        """Yield the environment of commands on the server: that of the installation that runs from
        this folder, or of its stores, which are then started for the block.

        Raises:
            AlreadyRuns: the installation has not finished starting.
        """
        try:
            try:
                self.start_stores()
                self._set_audit_keys()
                environment = self.environment_of("migrate")
                say(f"Assay does not run from {self.folder}: only its stores run for this command.")
            except AlreadyRuns:
                if not self._published.exists():
                    raise
                environment = {**os.environ, **json.loads(self._published.read_text())}
            yield environment
        finally:
            self.stop()

    def make_folders(self) -> None:
        """Create the folders, private to this user."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        for name in ("data", "logs", "secrets", "uploads", "valkey"):
            (self.folder / name).mkdir(exist_ok=True)
            (self.folder / name).chmod(0o700)
        earlier = self.folder / "postgres"
        if earlier.is_dir() and not self.postgres.exists():
            earlier.rename(self.postgres)

    def remove(self) -> None:
        """Delete all data of earlier starts, including read-only artifacts."""
        for folder in (self.folder, self.postgres):
            if not folder.exists():
                continue
            for path in [folder, *folder.rglob("*")]:
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o700)
            shutil.rmtree(folder)

    def _web(self) -> None:
        self._spawn(
            "web", "web", sys.executable, "-m", "assay.server", "--port", str(self.port),
            "--grace", "3",
        )  # fmt: skip

    def _workers(self) -> None:
        self._spawn(
            "compute-worker", "worker", *_CELERY, "-I", "workers.celery_tasks.jobs",
            "-Q", "compute", "-P", "threads", "-c", str(JOBS_AT_A_TIME),
            "-n", "compute@%h", *_QUIET,
        )  # fmt: skip
        self.start_engine_worker()
        self._spawn(
            "egress-worker", "egress", *_CELERY, "-I", "workers.celery_tasks.inference",
            "-Q", "engine.none", "-P", "threads", "-c", "4", "-n", "egress@%h", *_QUIET,
        )  # fmt: skip

    def start_engine_worker(self, number: int = 1) -> None:
        """Start an engine worker; `start` starts the one with number 1."""
        name = "engine-worker" if number == 1 else f"engine-worker-{number}"
        self._own[name] = self._own["engine-worker"]
        self._spawn(
            name, "worker", *_CELERY, "-I", "workers.celery_tasks.inference",
            "-Q", "engine.none", "-P", "threads", "-c", "16", "-n", f"engine{number}@%h", *_QUIET,
        )  # fmt: skip

    def process(self, name: str) -> subprocess.Popen[bytes]:
        """Return a process that was started, such as `web` or `engine-worker`."""
        return self._programs[name].process

    def end(self, name: str, *, kill: bool = False) -> None:
        """End one process and wait for it; `kill` gives it no time to clean up."""
        program = self._programs.pop(name)
        if kill:
            program.process.kill()
        else:
            program.process.terminate()
        program.process.wait()
        program.stop()

    def environment_of(self, process: str) -> dict[str, str]:
        """Return the environment of a process: `web`, `controller`, `worker` or `migrate`."""
        return {**self.environment, "ASSAY_PROCESS": process, **self._own[process]}

    def manage(self, *arguments: str) -> str:
        """Run a management command to its end, as the owner of the tables.

        Raises:
            RuntimeError: it failed; the message has its output.
        """
        return self._run("-m", "django", *arguments)

    def _run(self, *arguments: str, process: str = "migrate") -> str:
        finished = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment_of(process),
            capture_output=True,
            text=True,
            check=False,
        )
        if finished.returncode:
            command = " ".join(arguments[:3])
            raise RuntimeError(f"python {command} failed:\n{finished.stdout}{finished.stderr}")
        return finished.stdout

    def wait_for_web(self, timeout_s: float = 300.0) -> None:
        """Return once the web server answers."""
        self._wait_until(self._web_answers, "web", timeout_s)

    def wait_for_mlflow(self) -> None:
        """Return once MLflow answers."""
        if self.mlflow is not None:
            self.mlflow.wait()

    def _web_answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def _wait_until(self, ready: Callable[[], bool], name: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not ready():
            self.check_alive()
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"{name} is not ready after {timeout_s:.0f} s; its log is "
                    f"{self.logs / (name + '.log')}."
                )
            time.sleep(0.1)

    def check_alive(self) -> None:
        """Raise RuntimeError if a part has ended by itself; the message names the first one."""
        for name, part in self._parts().items():
            if part.ended():
                tail = "\n".join(part.log.read_text(errors="replace").splitlines()[-15:])
                raise RuntimeError(f"{name} ended ({part.log}):\n{tail}")

    def restart_ended(self, say: Say) -> None:
        """Restart every part that has ended by itself; call it repeatedly."""
        for name, part in self._parts().items():
            watch = self._watches.setdefault(name, Watch(part))
            try:
                if watch.restarted():
                    say(f"{name} ended and was started again; its log is {part.log}.")
            except Exception as error:
                # Any error of the packages that start stores. It must not affect other parts.
                say(f"{name} ended and cannot be started: {error}")

    def stop(self) -> None:
        """Stop all parts in reverse order of their start."""
        if self._lock is not None:
            self._published.unlink(missing_ok=True)
        for program in reversed(self._programs.values()):
            program.process.terminate()
        while self._programs:
            self._programs.popitem()[1].stop()
        while self._stores:
            self._stores.popitem()[1].stop()
        self._watches.clear()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _parts(self) -> dict[str, Part]:
        return {**self._stores, **self._programs}

    def _spawn(self, name: str, process: str, *command: str) -> None:
        self._programs[name] = Program(
            command,
            environment={**self.environment_of(process), **self._own.get(name, {})},
            log=self.logs / f"{name}.log",
            folder=self.folder,
        )

    def _locked(self) -> IO[str] | None:
        """Return the open lock of the folder; None while another process has it."""
        lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return None
        return lock

    @property
    def _published(self) -> Path:
        return self.folder / "secrets" / "commands.json"

    def _publish(self) -> None:
        """Write the environment for commands on the server while this stack runs."""
        environment = self.environment_of("migrate")
        own = {name: text for name, text in environment.items() if os.environ.get(name) != text}
        _write_private(self._published, json.dumps(own))

    def _secret(self, name: str) -> str:
        """Return a random secret, generated once and kept for later starts."""
        file = self.folder / "secrets" / name
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not file.exists():
            _write_private(file, secrets.token_urlsafe(48))
        return file.read_text()


def _write_private(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text)
