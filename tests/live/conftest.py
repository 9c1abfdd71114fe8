"""Every process of a live test is the broker's user of its kind, and lacks no right."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis as redis_module
from django.conf import global_settings
from django.conf import settings as tests_settings

from assay.local.services import MLflow
from tests.live.clients import CACHE, OFFLINE
from tests.services import broker_url
from tests.shipped import ROOT


@pytest.fixture(autouse=True)
def _secrets_are_long_enough_for_production(settings: Any) -> None:
    """Processes start with the environments that installations ship, and share them with tests."""
    settings.SECRET_KEY = "a secret of the tests that signs sessions"
    settings.KEY_PEPPERS = {1: b"a secret of the tests that makes key HMACs"}
    settings.USAGE_KEY = "a secret of the tests for usage entries"
    settings.WIRE_KEY = "a secret of the tests for what is sealed"
    # Other processes read these passwords, so they need a real hasher.
    settings.PASSWORD_HASHERS = global_settings.PASSWORD_HASHERS


@pytest.fixture(autouse=True)
def _no_process_is_denied_by_the_broker() -> Iterator[None]:
    if broker_url("web") == os.environ["REDIS_URL"]:
        yield  # Another broker than the tests' own.
        return
    with redis_module.Redis.from_url(os.environ["REDIS_URL"]) as admin:
        admin.acl_log_reset()
        yield
        denied: Any = admin.acl_log()
        # A node whose session begins or has ended is not known to the broker at that moment.
        others = [
            (one["username"], one["reason"], one["object"])
            for one in denied
            if not (one["reason"] == "auth" and one["username"].startswith("assay_node_"))
        ]
        assert others == []


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflow]:
    """A private MLflow on its own database of the tests' PostgreSQL."""
    import psycopg

    url = os.environ["DATABASE_URL"]
    name = f"mlflow_{uuid4().hex[:8]}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    path, _, query = url.partition("?")
    server = MLflow(
        f"{path.rpartition('/')[0]}/{name}" + (f"?{query}" if query else ""),
        Path(tests_settings.DATA_DIR) / "artifacts",
        tmp_path_factory.mktemp("mlflow") / "mlflow.log",
    )
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel of `assay-client`, built from the OpenAPI document."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "client.lock").open("w") as lock:
        # Test processes that run side by side build into one folder.
        fcntl.flock(lock, fcntl.LOCK_EX)
        build = subprocess.run(
            [ROOT / "tools" / "client.sh"], capture_output=True, text=True, timeout=500, check=False
        )
        if build.returncode and OFFLINE.search(build.stderr):
            pytest.skip(f"The package index cannot be reached: {build.stderr[-300:]}")
        assert build.returncode == 0, build.stderr[-3000:]
        (archive,) = (CACHE / "client").glob("*.whl")
        return Path(shutil.copy(archive, tmp_path_factory.mktemp("client")))
