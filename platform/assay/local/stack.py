"""A whole Assay on one machine: stores, web server, controller and both kinds of worker."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from assay.database_roles.privileges import MLFLOW, OWNER, ROLES
from assay.local.espeak import program_path
from assay.local.services import (
    MLflow,
    Postgres,
    Valkey,
    free_port,
    private_log,
    stop_process_group,
)
from assay.processes import HOLDERS

# Secrets that are made once, in files of these names.
MADE = {
    "ASSAY_SECRET_KEY": "secret-key",
    "ASSAY_KEY_PEPPER": "key-pepper",
    "ASSAY_USAGE_KEY": "usage-key",
    "ASSAY_WIRE_KEY": "wire-key",
}
ROOT = Path(__file__).resolve().parents[3]
# Small trainings gain little from a second thread, so two of them share the cores. A third job,
# such as the check of a delivery, need not wait for them.
JOBS_AT_A_TIME = 3
Say = Callable[[str], None]
_CELERY = (sys.executable, "-m", "celery", "-A", "workers.app", "worker")
_QUIET = ("--without-mingle", "--without-gossip", "--without-heartbeat")


class Stack:
    """Everything that runs, started in order and stopped in reverse.

    Args:
        folder: Where data, logs and secrets are kept; a second start finds the first's work there.
        demo: Whether the portal offers one-click personas on loopback.
        port: The web server's port; None takes a free one.
    """

    def __init__(self, folder: Path, *, demo: bool = False, port: int | None = None) -> None:
        self.folder = folder
        # Next to it: as root PostgreSQL runs as a user of its own, who has to pass through all
        # folders above its data.
        self.postgres = folder.with_name(f"{folder.name}-postgres")
        self.logs = folder / "logs"
        self.port = port or free_port()
        self._demo = demo
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._stops: list[Callable[[], None]] = []
        # What every process gets; `environment_of` adds what one kind of process gets.
        self.environment: dict[str, str] = {}
        # What each process gets: database role, broker user, secrets. Workers have one in common
        # and one of their own.
        self._own: dict[str, dict[str, str]] = {}
        self.mlflow: MLflow | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, say: Say) -> None:
        """Start everything; returns when the portal answers (MLflow may still be starting).

        Raises:
            RuntimeError: a part did not come up; names it and its log.
        """
        self.make_folders()
        postgres = Postgres(self.postgres)
        self._stops.append(postgres.stop)
        postgres.create_database("assay", owner=OWNER, creates_roles=True)
        postgres.create_database("mlflow", owner=MLFLOW)
        valkey = Valkey(self.folder / "valkey")
        self._stops.append(valkey.stop)
        data = self.folder / "data"
        self.mlflow = MLflow(
            postgres.url("mlflow", MLFLOW), self.folder / "mlflow", self.logs / "mlflow.log"
        )
        self._stops.append(self.mlflow.stop)
        self.environment = {
            **os.environ,
            # Demonstrations of speech fetch it when they begin.
            "ASSAY_ESPEAK_NG": os.environ.get("ASSAY_ESPEAK_NG") or str(program_path()),
            "ASSAY_ENV": "development",
            "ASSAY_DEMO": "1" if self._demo else "0",
            "ASSAY_DATA_DIR": str(data),
            # Mail and one-time links lead to the port that this stack took.
            "ASSAY_PORTAL_URL": self.url,
            **self.mlflow.environment,
            "ASSAY_STATIC_ROOT": str(self.folder / "static"),
            "ASSAY_STATIC_COLLECTED": "1",
            "DJANGO_SETTINGS_MODULE": "assay.settings",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "platform")]),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            # Waiting threads of torch yield the cores to other processes.
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        say("PostgreSQL and Valkey run; MLflow is starting.")
        self._own = {
            "migrate": {
                "DATABASE_URL": postgres.url("assay", OWNER),
                "REDIS_URL": valkey.url_of("web"),
            },
            **{
                name: {"DATABASE_URL": postgres.url("assay", role.name)}
                for name, role in ROLES.items()
            },
            # Of the workers, only those that serve have the wire key.
            "compute-worker": {
                "REDIS_URL": valkey.url_of("compute"),
                "ASSAY_WIRE_KEY": "",
                "ASSAY_COMPUTE_THREADS": str(max(1, (os.cpu_count() or 1) // 2)),
            },
            "engine-worker": {"REDIS_URL": valkey.url_of("engine")},
        }
        for process in ("web", "controller"):
            self._own[process]["REDIS_URL"] = valkey.url_of(process)
        for secret, holders in HOLDERS.items():
            if secret in MADE:
                # There are no nodes on the machine of the control plane.
                for process in self._own.keys() & set(holders):
                    self._own[process][secret] = self._secret(MADE[secret])
        self.manage("migrate", "--verbosity", "0")
        self.manage("apply_database_roles")
        self.manage("collectstatic", "--no-input", "--clear", "--verbosity", "0")
        # Before web, which verifies with the public key that the controller makes.
        self._spawn("controller", "controller", sys.executable, "manage.py", "run_controller")
        self._web()
        self._workers()
        self.wait_for_web()

    def make_folders(self) -> None:
        """Make the folders that no other user of this machine may enter."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        for name in ("data", "logs", "secrets", "uploads", "valkey"):
            (self.folder / name).mkdir(exist_ok=True)
            (self.folder / name).chmod(0o700)
        earlier = self.folder / "postgres"
        if earlier.is_dir() and not self.postgres.exists():
            earlier.rename(self.postgres)

    def remove(self) -> None:
        """Delete all that earlier starts have left, read-only artifacts included."""
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

    def start_engine_worker(self, number: int = 1) -> None:
        """Start an engine worker; the first is the one that `start` starts."""
        name = "engine-worker" if number == 1 else f"engine-worker-{number}"
        self._own[name] = self._own["engine-worker"]
        self._spawn(
            name, "worker", *_CELERY, "-I", "workers.celery_tasks.inference",
            "-Q", "engine.none", "-P", "threads", "-c", "16", "-n", f"engine{number}@%h", *_QUIET,
        )  # fmt: skip

    def process(self, name: str) -> subprocess.Popen[bytes]:
        """Return a process that was started, such as `web` or `engine-worker`."""
        return self._processes[name]

    def end(self, name: str, *, kill: bool = False) -> None:
        """End one process and wait for it; `kill` gives it no time to clean up."""
        process = self._processes.pop(name)
        if kill:
            process.kill()
        else:
            process.terminate()
        process.wait()
        stop_process_group(process)

    def environment_of(self, process: str) -> dict[str, str]:
        """The environment of a process: `web`, `controller`, `worker` or `migrate`."""
        return {**self.environment, "ASSAY_PROCESS": process, **self._own[process]}

    def manage(self, *arguments: str, **extra: str) -> str:
        """Run a management command to its end, as the owner of the tables.

        Raises:
            RuntimeError: it failed; carries its output.
        """
        finished = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env={**self.environment_of("migrate"), **extra},
            capture_output=True,
            text=True,
            check=False,
        )
        if finished.returncode:
            raise RuntimeError(
                f"manage.py {arguments[0]} failed:\n{finished.stdout}{finished.stderr}"
            )
        return finished.stdout

    def wait_for_web(self, timeout_s: float = 60.0) -> None:
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
        """Raise RuntimeError naming the first process that has ended by itself."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                log = self.logs / f"{name}.log"
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                raise RuntimeError(f"{name} ended with {process.returncode} ({log}):\n{tail}")

    def stop(self) -> None:
        """Stop all that was started, last first."""
        for name in reversed(list(self._processes)):
            self._processes[name].terminate()
        for name in reversed(list(self._processes)):
            stop_process_group(self._processes.pop(name))
        while self._stops:
            self._stops.pop()()

    def _spawn(self, name: str, process: str, *command: str) -> None:
        with private_log(self.logs / f"{name}.log") as output:
            self._processes[name] = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**self.environment_of(process), **self._own.get(name, {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
            )

    def _secret(self, name: str) -> str:
        """A random secret, made once and kept for the next start."""
        file = self.folder / "secrets" / name
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not file.exists():
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as handle:
                handle.write(secrets.token_urlsafe(48))
        return file.read_text()
