"""Networks from which a key is accepted. Does not import Django."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
# Maximum length in the column of a key's networks.
TEXT_MAX = 43


def network_fault(text: str) -> str:
    """Return the reason why a key cannot be restricted to the network `text`, or an empty string.

    Interface names (`fe80::1%eth0`) are invalid: they are local to a machine and can be any text.
    """
    try:
        network = None if "%" in text or len(text) > TEXT_MAX else ip_network(text, strict=False)
    except ValueError:
        network = None
    if network is None:
        return f"{text[:60]!r} is not a network; write it as 10.20.0.0/16 or 2001:db8::/32."
    if isinstance(network, IPv6Network) and (mapped := network.network_address.ipv4_mapped):
        network_v4 = ip_network(f"{mapped}/{network.prefixlen - 96}")
        return f"{text} contains IPv4 addresses, which are received as IPv4; write {network_v4}."
    try:
        ip_network(text)
    except ValueError:
        return f"{text} is an address inside a network; write {network}."
    return ""


@lru_cache(maxsize=4096)
def _network(text: str) -> Network:
    return ip_network(text)


def address_allowed(address: str, networks: Iterable[str]) -> bool:
    """Return whether `address` is in one of `networks`; without networks, all are allowed.

    An unknown address (a Unix socket) is in no network. An IPv4-mapped IPv6 address
    (`::ffff:10.0.0.1`) counts as the IPv4 address.
    """
    allowed = tuple(networks)
    if not allowed:
        return True
    try:
        caller = ip_address(address)
    except ValueError:
        return False
    if isinstance(caller, IPv6Address) and caller.ipv4_mapped is not None:
        caller = caller.ipv4_mapped
    return any(caller in _network(text) for text in allowed)
