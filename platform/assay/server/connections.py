"""Which connections are closed when there are too many: those of clients that keep us waiting.

A connection waits for its client while a head or a body is not complete, while nothing is
requested, and while an answer is not taken. It may be closed at any time, unless its client has
proved who they are: whoever verifies a credential calls `prove`. What a client merely states counts
for nothing.
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
    """A connection as far as others need it."""

    def prove(self, scope: Scope, holder: str) -> None:
        """Note whose the request of `scope` is."""

    def turn_away(self, status: int) -> None:
        """Close it, with an answer if one is due."""


def prove(scope: Scope, holder: str) -> None:
    """State that the request's credential was verified, and is `holder`'s. From now on until the
    next request's head its connection stays, whoever else comes.
    """
    connection: Connection | None = scope.get(CONNECTION)
    if connection is not None:
        connection.prove(scope, holder)


class Waiting:
    """Connections that may be closed, longest wait first."""

    def __init__(self) -> None:
        self._sources: OrderedDict[Connection, str] = OrderedDict()
        self._counts: Counter[str] = Counter()

    def add(self, connection: Connection, source: str) -> None:
        """Add one that begins to wait now. `source` is the network that it comes from; empty where
        that is a proxy."""
        self.remove(connection)
        self._sources[connection] = source
        if source:
            self._counts[source] += 1

    def remove(self, connection: Connection) -> None:
        """Remove one; nothing happens if it does not wait."""
        source = self._sources.pop(connection, "")
        if source:
            self._counts[source] -= 1
            if not self._counts[source]:
                del self._counts[source]

    def longest(self) -> Connection:
        """Return the one to close: of the network that has most of them, the longest wait."""
        most = max(self._counts.values(), default=0)
        for connection, source in self._sources.items():
            if most <= 1 or (source and self._counts[source] == most):
                return connection
        raise LookupError("No connection waits.")


@lru_cache(1)
def protected() -> Shares:
    """Return the places of connections whose clients have proved who they are: half of all, so that
    the others are never left without any."""
    return Shares(settings.WEB_CONNECTIONS // 2)


@lru_cache(4096)
def source_of(address: str) -> str:
    """Return the network that an address counts with: itself, or in IPv6, where one client has
    billions of them, its /64. Empty for a trusted proxy, which speaks for many, and for a Unix
    socket.
    """
    try:
        parsed = ip_address(plain_address(address))
    except ValueError:
        return ""
    if any(parsed in network for network in networks(settings.TRUSTED_PROXIES)):
        return ""
    return str(parsed if parsed.version == 4 else ip_network((int(parsed), 64), strict=False))
