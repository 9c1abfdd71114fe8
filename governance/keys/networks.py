"""Which networks a key is accepted from. Pure; knows no Django."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
# What the column of a key's networks takes.
TEXT_MAX = 43


def network_fault(text: str) -> str:
    """Return the reason that a key cannot be bound to the network `text`; empty if it can.

    An interface's name in an address (`fe80::1%eth0`) says nothing here, and could be any text.
    """
    try:
        meant = None if "%" in text or len(text) > TEXT_MAX else ip_network(text, strict=False)
    except ValueError:
        meant = None
    if meant is None:
        return f"{text[:60]!r} is no network; write it as 10.20.0.0/16 or 2001:db8::/32."
    if isinstance(meant, IPv6Network) and (mapped := meant.network_address.ipv4_mapped):
        inside = ip_network(f"{mapped}/{meant.prefixlen - 96}")
        return f"{text} holds addresses of IPv4, which arrive as such; write {inside}."
    try:
        ip_network(text)
    except ValueError:
        return f"{text} names an address inside its network; write {meant}."
    return ""


@lru_cache(maxsize=4096)
def _network(text: str) -> Network:
    return ip_network(text)


def address_allowed(address: str, networks: Iterable[str]) -> bool:
    """True when `address` is in one of `networks`; without networks every address is allowed.

    An address that is not known (a Unix socket) lies in none. An IPv4 address that arrives in
    IPv6's clothes (`::ffff:10.0.0.1`) is the IPv4 address.
    """
    wanted = tuple(networks)
    if not wanted:
        return True
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found in _network(text) for text in wanted)
