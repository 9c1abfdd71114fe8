"""`python -m assay.server`: the web process."""

from __future__ import annotations

import argparse
import os
import sys

import uvicorn


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
    uvicorn.run(
        "assay.asgi:application",
        host=options.host,
        port=options.port,
        workers=options.workers,
        log_level=options.log_level,
        timeout_graceful_shutdown=options.grace,
        access_log=False,
        server_header=False,
        # Only `ASSAY_TRUSTED_PROXIES` says whose word about a client's address is believed.
        proxy_headers=False,
        ws="none",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
