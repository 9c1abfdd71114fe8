"""Choose which connections to close when there are too many: those that wait for their client.

A connection waits while a head or a body is incomplete, between requests, and while the client does
not read an answer. It may then be closed at any time, unless a credential of its client was
verified: code that verifies one calls `prove`. Unverified claims of a client do not matter.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Protocol

from django.conf import settings

from assay.addresses import networks, plain_address
from assay.gateway.http.asgi import Scope
from assay.server.shares import Shares

CONNECTION = "assay.connection"


class Connection(Protocol):
    """Interface of a connection for other modules."""

    def prove(self, scope: Scope, holder: str) -> None:
        """Set the verified owner of the request of `scope`."""

    def turn_away(self, status: int) -> None:
        """Close the connection, with an answer if one is due."""


def prove(scope: Scope, holder: str) -> None:
    """Report that the request's credential was verified and belongs to `holder`. The connection
    then stays open until the next request's head, regardless of new connections.
    """
    connection: Connection | None = scope.get(CONNECTION)
    if connection is not None:
        connection.prove(scope, holder)


class Waiting:
    """Connections that may be closed, in the order in which they began to wait."""

    def __init__(self) -> None:
        self._sources: OrderedDict[Connection, str] = OrderedDict()
        self._counts: Counter[str] = Counter()

    def add(self, connection: Connection, source: str) -> None:
        """Add a connection that begins to wait now. `source` is the network that it comes from;
        empty for a proxy."""
        self.remove(connection)
        self._sources[connection] = source
        if source:
            self._counts[source] += 1

    def remove(self, connection: Connection) -> None:
        """Remove a connection, if it is waiting."""
        source = self._sources.pop(connection, "")
        if source:
            self._counts[source] -= 1
            if not self._counts[source]:
                del self._counts[source]

    def longest(self) -> Connection:
        """Return the connection to close: the longest wait in the network with most connections."""
        most = max(self._counts.values(), default=0)
        for connection, source in self._sources.items():
            if most <= 1 or (source and self._counts[source] == most):
                return connection
        raise LookupError("No connection waits.")


@lru_cache(1)
def protected() -> Shares:
    """Return the places of connections with a verified credential: half of all, so that some are
    always left for other clients."""
    return Shares(settings.WEB_CONNECTIONS // 2)


@lru_cache(4096)
def source_of(address: str) -> str:
    """Return the network that an address counts for: itself, or its /64 in IPv6, where one client
    has billions of addresses. Empty for a trusted proxy, which forwards for many clients, and for a
    Unix socket.
    """
    try:
        parsed = ip_address(plain_address(address))
    except ValueError:
        return ""
    if any(parsed in network for network in networks(settings.TRUSTED_PROXIES)):
        return ""
    return str(parsed if parsed.version == 4 else ip_network((int(parsed), 64), strict=False))
