"""The web process's pool of database connections.

Under ASGI, Django creates a thread for each request. A connection that belonged to the thread would
be lost with it, so threads borrow one from a pool and return it after the request.
"""

from __future__ import annotations

from typing import Any

from django.db import connections
from psycopg import Connection

# Connections for the gateway's snapshot, its metrics, and `/readyz`, in addition to requests.
RESERVED = 4


def forget_session(connection: Connection[Any]) -> None:
    """Reset a returned connection: role, settings, locks, cursors, temporary tables.

    Row-level security reads settings of the session. They are only set for one transaction, so this
    is a second line of defense.
    """
    connection.autocommit = True
    connection.execute("DISCARD ALL")


def pool_options(*, threads: int, wait_s: int) -> dict[str, Any]:
    """Return options of `psycopg_pool.ConnectionPool` for a process with `threads`."""
    return {
        "min_size": 1,
        "max_size": threads + RESERVED,
        "timeout": wait_s,
        # If the server does not answer, the next request retries, rather than a long queue.
        "reconnect_timeout": wait_s,
        "reset": forget_session,
    }


def give_back() -> None:
    """Return the calling thread's connections to the pool, in whatever state."""
    connections.close_all()
