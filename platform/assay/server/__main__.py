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

# An idle connection is kept this long; a proxy before this must let go of its own sooner.
KEEP_ALIVE_S = 15
# Files other than connections: database, broker, uploads, code.
OTHER_FILES = 1024
LEFT_AFTER_S = 24 * 3600


def main(argv: list[str] | None = None) -> int:
    """Serve until a signal ends it; returns the exit status."""
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
            # Only `ASSAY_TRUSTED_PROXIES` says whose word about a client's address is believed.
            proxy_headers=False,
            http=BoundedProtocol,
            ws="none",
            timeout_keep_alive=KEEP_ALIVE_S,
        )
    return 0


@contextmanager
def counted_together() -> Iterator[None]:
    """Have all processes count into one private folder, so that each shows the counts of all
    (`assay.gateway.monitoring.exposition`). prometheus_client looks for it when it is imported,
    later."""
    # uvicorn raises the signal that ended it again, whose own effect would leave the folder.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    folder = tempfile.mkdtemp(prefix="assay-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def prepare() -> None:
    """Make the folder for uploads, private to this user, and allow as many files as connections."""
    folder: Path = settings.UPLOAD_DIR
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    # What a process that was killed has left.
    for left in folder.glob("*.upload*"):
        if time.time() - left.stat().st_mtime > LEFT_AFTER_S:
            left.unlink(missing_ok=True)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.WEB_CONNECTIONS + OTHER_FILES
    if most != resource.RLIM_INFINITY:
        wanted = min(wanted, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


if __name__ == "__main__":
    sys.exit(main())
