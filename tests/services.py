"""Real PostgreSQL and Valkey for every test.

A pytest plugin (`-p tests.services` in `pyproject.toml`), so that both run before pytest-django
reads the settings.

`DATABASE_URL` and `REDIS_URL` from the environment win: the same tests run against other servers.
With `ASSAY_TEST_SERVERS=own`, each parallel worker starts its own PostgreSQL: tests that start
processes of ours would share the connection limits of their roles, which belong to a server.
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import redis as redis_module

# Collecting tests makes a million objects, and next to no garbage. `tests/speed.py` sets it anew.
gc.set_threshold(200_000, 50, 50)

_scratch = Path(tempfile.mkdtemp(prefix="assay-test-"))
_scratch.chmod(0o755)
atexit.register(shutil.rmtree, _scratch, ignore_errors=True)

os.environ.setdefault("ASSAY_ENV", "test")
# Tests of that duty set it; in others an administrator signs in with a password.
os.environ.setdefault("ASSAY_SECOND_FACTOR_ROLES", "")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assay.settings")
# Of the private key of 32 bytes 0x11: tests enter credentials as a web process does.
os.environ.setdefault(
    "ASSAY_EGRESS_PUBLIC_KEY", "7b4e909bbe7ffe44c465a220037d608ee35897d31ef972f07f74892cb0f73f13"
)

# A process that a test starts may import this, too: it uses what its pytest process started.
_process = os.environ.get("PYTEST_XDIST_WORKER", "main")
_child = os.environ.get("ASSAY_TEST_PROCESS") == _process
os.environ["ASSAY_TEST_PROCESS"] = _process
if not _child:
    os.environ["ASSAY_DATA_DIR"] = str(_scratch / "data")
_parallel = "PYTEST_XDIST_WORKER" in os.environ and not _child
_starts_postgres = "DATABASE_URL" not in os.environ
if _parallel and os.environ.get("ASSAY_TEST_SERVERS") == "own":
    _starts_postgres = _starts_postgres or "ASSAY_TEST_POSTGRES" in os.environ
if _starts_postgres:
    from assay.local.services import Postgres
    from tests import schema

    schema.copy_to(_scratch / "postgres")
    _postgres = Postgres(_scratch / "postgres")
    os.environ["DATABASE_URL"] = _postgres.url("postgres")
    os.environ["ASSAY_TEST_POSTGRES"] = "1"  # Not given from outside; workers inherit it.
# A parallel worker inherits the first process's PostgreSQL, where pytest-django gives it a database
# of its own, and takes a Valkey of its own, which tests flush.
if "REDIS_URL" not in os.environ or _parallel:
    from assay.local.services import Valkey

    _valkey = Valkey()
    atexit.register(_valkey.stop)
    os.environ["REDIS_URL"] = _valkey.url


def broker_url(process: str) -> str:
    """URL of the broker for that kind of process; unchanged if the tests did not start it."""
    own = globals().get("_valkey")
    if own is None or os.environ["REDIS_URL"] != own.url:
        return os.environ["REDIS_URL"]
    return str(own.url_of(process))


@pytest.fixture
def redis() -> Iterator[redis_module.Redis]:
    """A client of an empty Valkey."""
    import redis as redis_module

    client = redis_module.Redis.from_url(os.environ["REDIS_URL"])
    client.flushall()
    yield client
    client.flushall()
    client.close()
