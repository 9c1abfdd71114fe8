"""The web process's pool of database connections.

Django makes a thread for each request under ASGI. A connection that stays open with its thread
would be lost with it, so threads borrow from one pool, and give back when the request is over.
"""

from __future__ import annotations

from typing import Any

from django.db import connections
from psycopg import Connection

# The gateway's snapshot, its metrics, and `/readyz` hold or borrow one each, in addition to
# requests.
RESERVED = 4


def forget_session(connection: Connection[Any]) -> None:
    """Reset a connection that comes back: role, settings, locks, cursors, temporary tables.

    Row-level security reads settings of the session. They are set for one transaction each; this
    is the second line of defense.
    """
    connection.autocommit = True
    connection.execute("DISCARD ALL")


def pool_options(*, threads: int, wait_s: int) -> dict[str, Any]:
    """Options of `psycopg_pool.ConnectionPool` for a process with this many request threads."""
    return {
        "min_size": 1,
        "max_size": threads + RESERVED,
        "timeout": wait_s,
        # A server that does not answer is asked again by the next request, not by a long queue.
        "reconnect_timeout": wait_s,
        "reset": forget_session,
    }


def give_back() -> None:
    """Return the calling thread's connections to the pool, whatever state they are in."""
    connections.close_all()
