"""`python -m assay.server`: the web process."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from django.conf import settings

from assay.server.protocol import BoundedProtocol

# Idle connections are closed after this time; a proxy in front must close its own sooner.
KEEP_ALIVE_S = 15
# Files other than connections: database, broker, uploads, code.
OTHER_FILES = 1024
LEFT_AFTER_S = 24 * 3600


def main(argv: list[str] | None = None) -> int:
    """Serve until a signal arrives; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m assay.server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=1, help="processes that share the port")
    parser.add_argument(
        "--grace", type=int, default=30, help="seconds that requests may take to end"
    )
    parser.add_argument("--log-level", default="info")
    options = parser.parse_args(argv)
    # Before the settings are read, here and in every worker.
    os.environ["ASSAY_PROCESS"] = "web"
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "assay.settings")
    prepare()
    with counted_together():
        uvicorn.run(
            "assay.asgi:application",
            host=options.host,
            port=options.port,
            workers=options.workers,
            log_config=settings.LOGGING,
            log_level=options.log_level,
            timeout_graceful_shutdown=options.grace,
            access_log=False,
            server_header=False,
            # `ASSAY_TRUSTED_PROXIES` alone decides which proxies may state a client's address.
            proxy_headers=False,
            http=BoundedProtocol,
            ws="none",
            timeout_keep_alive=KEEP_ALIVE_S,
        )
    return 0


@contextmanager
def counted_together() -> Iterator[None]:
    """Set a private folder in which all processes count, so that each can report all counts
    (`assay.gateway.monitoring.exposition`). prometheus_client reads the setting on import, later.
    """
    # uvicorn raises the signal again after shutdown; the default action would leave the folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    folder = tempfile.mkdtemp(prefix="assay-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def prepare() -> None:
    """Create the private folder for uploads, and raise the limit of open files for connections."""
    folder: Path = settings.UPLOAD_DIR
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    # Files of processes that were killed.
    for leftover in folder.glob("*.upload*"):
        if time.time() - leftover.stat().st_mtime > LEFT_AFTER_S:
            leftover.unlink(missing_ok=True)
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft_limit = settings.WEB_CONNECTIONS + OTHER_FILES
    if hard_limit != resource.RLIM_INFINITY:
        soft_limit = min(soft_limit, hard_limit)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft_limit, hard_limit))


if __name__ == "__main__":
    sys.exit(main())
